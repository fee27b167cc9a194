"""The report of a run that the code of b318a7d made is what that code printed, except for escapes in Markdown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import analysis

FIXTURES = Path(__file__).parents[2] / "fixtures" / "b318a7d"


@pytest.mark.parametrize("name", ["run", "five"])
def test_an_old_run_is_reported_as_it_was(name):
    summary = analysis.summarise(FIXTURES / name)
    assert analysis.terminal_report(summary) + "\n" == (FIXTURES / f"{name}.txt").read_text(encoding="utf-8")
    texts = (analysis.markdown_report(summary), (FIXTURES / f"{name}.md").read_text(encoding="utf-8"))
    new, old = (re.sub(r"\\(\W|_)", r"\1", text) for text in texts)
    assert new == old
