"""Directories of many campaigns that the code of b318a7d made: summarised and printed as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.report.markdown import as_markdown
from analysis.report.text import as_text
from analysis.suites.registry import kind_of

FIXTURES = Path(__file__).parents[2] / "fixtures" / "b318a7d"
KINDS = {"sweep": "matrix", "runtimes": "runtimes"}


@pytest.fixture(params=sorted(KINDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_kind_of_an_old_directory_is_known(name: str) -> None:
    kind = kind_of(FIXTURES / name)
    assert kind is not None
    assert kind.kind == KINDS[name]
    assert kind_of(FIXTURES / "run") is None


def test_the_text_of_an_old_directory_is_what_it_was(name: str) -> None:
    assert as_text(document(name)) == (FIXTURES / f"{name}.txt").read_text(encoding="utf-8")


def test_the_markdown_of_an_old_directory_is_what_it_was(name: str) -> None:
    assert as_markdown(document(name)) == (FIXTURES / f"{name}.md").read_text(encoding="utf-8")


def test_the_summary_of_an_old_directory_has_the_keys_and_values_it_had(name: str) -> None:
    kind = kind_of(FIXTURES / name)
    assert kind is not None
    summary = without_codes(json.loads(kind.summarised(FIXTURES / name).to_json()))
    was = json.loads((FIXTURES / name / "summary.json").read_text(encoding="utf-8"))
    assert summary.pop("schema") != was.pop("schema")  # codes stand beside the sentences since
    assert summary == was


def document(name: str) -> Any:
    kind = kind_of(FIXTURES / name)
    assert kind is not None
    return kind.summarised(FIXTURES / name).document


def without_codes(plain: Any) -> Any:
    """The JSON without what stands beside the sentences since."""
    if isinstance(plain, list):
        return [without_codes(value) for value in plain]
    if not isinstance(plain, dict):
        return plain
    return {key: without_codes(value) for key, value in plain.items() if not key.endswith(("_code", "_codes"))}
