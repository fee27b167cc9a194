"""The worst patterns of prose that reads as translated are kept out of documents, docstrings and comments.

Each pattern has its cure. Text that the program prints is not read here, and neither is code.
`python -m tests.test_words` prints every fault.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, ROOT, handwritten

UNIT = "agent|block|call|campaign|event|file|host|level|line|process|request|row|run|sample|second|side|slot|token"
PATTERNS = {
    r"^Returns? (?:what|which|how|where|when|who)\b": "name the thing returned",
    r"\bof itself\b": "say which figure or state is meant",
    r"\b(?:is|are) to be (?:had|told|seen|found)\b": "is available; can be seen",
    r"\b(?:go|goes|gone|going) on with\b": "continue, resume",
    r"\b(?:no|some)body\b|\bwhoever\b": "name the actor, or use the passive",
    r"[,;] for (?:it|they|there|nobody|none|he|she)\b": "because",
    r"[,;] for (?:that|this) (?:is|was|takes|needs|would|has)\b": "because",
    r"\bbut for\b|\bwhence\b": "except; from where",
    r"\bso (?:many|few|much|narrow)\b(?! (?:as|that)\b)": "that number, n",
    r"\blook(?:s|ed|ing)? at\b": "check, read, sample",
    r"\b(?:told|tells)\b": "reported, stated, given",
    r"\bof ours\b": "of loadgen",
    rf"\b(?:a|an|one) [a-z]+ a (?:{UNIT})\b": "per",
}
SOURCES = [path for top in ("loadgen", "analysis", "grafana", "tests") for path in sorted((ROOT / top).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """The paragraphs of a document, or the docstrings and comments of a module, each with its line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from _paragraphs(handwritten(text))
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, docstring
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("#").strip()


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Runs of lines without fenced blocks; code within a line is blank."""
    fenced, lines, begin = False, [], 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = line.startswith("```")
        if fence or fenced or not line.strip():
            if lines:
                yield begin, re.sub(r"`[^`]*`", "`", "\n".join(lines))
            lines, begin = [], number + 1
        else:
            lines.append(line)
        fenced ^= fence


def faults(path: Path) -> list[str]:
    """Each place of a pattern: file, line, what stands there, and the cure."""
    return [
        f"{name_of(path)}:{line + prose.count(chr(10), 0, match.start())}: {match[0].strip()!r}: {cure}"
        for line, prose in prose_of(path)
        for pattern, cure in PATTERNS.items()
        for match in re.finditer(pattern.replace(" ", r"\s+"), prose, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_documents_are_in_plain_words(path):
    assert faults(path) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_docstrings_and_comments_are_in_plain_words(path):
    assert faults(path) == []


@pytest.mark.parametrize(
    "prose",
    [
        "Return what stays of it once its run is over.",
        "What a campaign says of itself.",
        "Nothing is\nto be had from it.",
        "One array a\nrequest.",
        "It is dropped, for it is late.",
    ],
)
def test_a_pattern_is_seen_over_the_end_of_a_line(prose, tmp_path, monkeypatch):
    module = tmp_path / "module.py"
    module.write_text(f'"""{prose}"""\n', encoding="utf-8")
    monkeypatch.setattr("tests.test_words.ROOT", tmp_path)
    assert len(faults(module)) == 1


def test_what_a_program_prints_is_not_read(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('"""Words."""\n\nprint("nobody told us of itself")\n', encoding="utf-8")
    assert list(prose_of(module)) == [(1, "Words.")]


if __name__ == "__main__":
    print("\n".join(fault for source in SOURCES for fault in faults(source)))
