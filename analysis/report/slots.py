"""What `loadgen slots` found: the number of slots, what the server reports itself, the bursts, and what to set."""

from __future__ import annotations

from dataclasses import replace

from analysis.probes.prefix_cache import PrefixCache
from analysis.probes.slots import SizeRow, SlotsResult
from analysis.report import numbers
from analysis.report.document import (
    Bullets,
    Column,
    Document,
    Facts,
    Paragraph,
    Plot,
    PlotRow,
    Row,
    Section,
    Table,
)
from analysis.report.html import as_page
from analysis.report.markdown import as_markdown
from analysis.report.text import as_text

__all__ = ["slots_markdown", "slots_page", "slots_sections", "slots_text"]

LABEL = 14
CONFIRMED = {
    "agrees": "which agrees",
    "disagrees": "which DISAGREES with what was measured",
    "unknown": "not confirmed",
}
COLUMNS = (
    Column("sent", 4),
    Column("began at once", 16),
    Column("undecided", 12),
    Column("first TTFT ms", 16),
    Column("last TTFT ms", 16),
    Column("tokens/s", 12),
)
SURE = 0.999  # from here on the confidence is not written out


def slots_text(result: SlotsResult) -> str:
    """The result as text, no line wider than 80 columns, ending in a newline."""
    first, *rest = slots_sections(result)
    return as_text(Document("", [replace(first, text_title=""), *rest]))


def slots_markdown(result: SlotsResult) -> str:
    """The result as a section of Markdown, ending in a newline."""
    return as_markdown(Document("", slots_sections(result)))


def slots_page(result: SlotsResult) -> str:
    """The result as one page."""
    return as_page(Document("slots", slots_sections(result)))


def slots_sections(result: SlotsResult) -> list[Section]:
    """The server, the facts, the bursts by size with a dot per burst on the page, and what to set."""
    slots = result.slots.value
    plot = Plot(
        [PlotRow(f"{size.k} sent", [float(count) for count in size.at_once]) for size in result.sizes],
        "answers that began at once, one dot a burst",
        mark=slots,
    )
    table = Table(COLUMNS, [_row(size) for size in result.sizes])
    target = result.target
    return [
        Section("Slots", [Paragraph(" · ".join(part for part in (target.url, target.version, target.model) if part))]),
        Section("", [Facts(_facts(result), LABEL)]),
        Section("", [plot, table]),
        Section("", [Bullets(result.advice)]),
    ]


def _facts(result: SlotsResult) -> list[tuple[str, str]]:
    facts = [("slots", _slots(result))]
    reported, cache = result.reported, result.cache
    if reported is None:
        facts.append(("it says", "nothing about its slots"))
    else:
        facts.append(("it says", f"{reported.slots} ({reported.source}), {CONFIRMED[str(reported.verdict)]}"))
    if result.turned_away:
        facts.append(("turned away", result.turned_away))
    if cache is not None:
        facts.append(("prefix cache", cache.sentence))
        if cache.fresh_ttft_ms is not None:
            facts.append(("", _cache_figures(cache)))
        if cache.reported:
            facts.append(("", f"it says: {cache.reported}"))
    return facts


def _slots(result: SlotsResult) -> str:
    figure = result.slots
    low, high, confidence = figure.low, figure.high, figure.confidence
    if result.verdict == "inconclusive":
        begin = f"inconclusive: {result.reason}"
        return begin if low is None else f"{begin} (at least {low:g} were worked on at once)"
    notes = "; ".join(figure.notes)
    if result.verdict == "at-least":
        return f"at least {low:g} ({notes})"
    sure = "over 99.9 %" if confidence is None or confidence >= SURE else f"{100 * confidence:.1f} %"
    return f"{figure.value:g} ({sure} sure of {f'{low:g}' if low == high else f'{low:g} to {high:g}'}; {notes})"


def _cache_figures(cache: PrefixCache) -> str:
    ratio, control = numbers.value_and_interval(cache.ratio), numbers.value_and_interval(cache.control)
    return (
        f"TTFT {cache.fresh_ttft_ms:.4g} ms fresh, {cache.repeat_ttft_ms:.4g} ms repeated; "
        f"ratio {ratio}, of two fresh ones {control}; {cache.ratio.n} trios"
    )


def _row(size: SizeRow) -> Row:
    counts = sorted(set(size.at_once))
    began = numbers.REFUSED if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"
    medians = (size.ttft_first_ms, size.ttft_last_ms, size.output_tokens_per_s)
    cells = [numbers.REFUSED if median is None else f"{median:.4g}" for median in medians]
    return Row((str(size.k), began, f"{size.undecided}/{size.bursts}", *cells))
