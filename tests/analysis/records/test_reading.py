"""What was read of a directory once is kept, and says the same as reading it again."""

from pathlib import Path

import analysis

AGENTS = Path(__file__).parents[2] / "fixtures" / "b318a7d" / "agents"


def test_what_was_read_once_is_kept():
    reading = analysis.reading_of(AGENTS)
    assert reading.measured is reading.measured
    assert reading.measured is reading.of_runs(reversed(reading.measured.runs))
    assert reading.calls is reading.calls
    assert analysis.reading_of(reading) is reading
    assert reading.of_arm("solo:collector") is not reading.measured


def test_a_reading_gives_the_summary_and_the_page_of_its_directory():
    reading = analysis.reading_of(AGENTS)
    summary = analysis.summarise(reading)
    assert summary == analysis.summarise(AGENTS)
    assert analysis.html_report(reading, summary) == analysis.html_report(AGENTS)
