"""What `loadgen slots` found, for people: text of 80 columns, and markdown, both made from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from analysis.report import figures
from analysis.report.page import Strip, page, section, strips, table
from analysis.report.words import escaped, wrapped

__all__ = ["slots_markdown", "slots_page", "slots_text"]

LABEL = 14
COLUMNS = (4, 16, 12, 16, 16, 12)
TOLD = {"agrees": "which agrees", "disagrees": "which DISAGREES with what was measured", "unknown": "not confirmed"}
HEAD = ("sent", "began at once", "undecided", "first TTFT ms", "last TTFT ms", "tokens/s")

Result = Mapping[str, Any]


def slots_text(result: Result) -> str:
    """Return the result as text, no line wider than 80 columns, ending in a newline."""
    lines = [*wrapped(_target(result)), ""]
    for label, text in _facts(result):
        lines += wrapped(text, f"{label:<{LABEL}}", " " * LABEL)
    lines += ["", *(_row(row) for row in (HEAD, *_rows(result)))]
    if result["advice"]:
        lines += ["", *(line for text in result["advice"] for line in wrapped(text))]
    return "\n".join(lines) + "\n"


def slots_markdown(result: Result) -> str:
    """Return the result as a section of markdown, ending in a newline."""
    lines = ["## Slots", "", escaped(_target(result)), ""]
    lines += [f"- **{label}:** {escaped(text)}" for label, text in _facts(result)]
    lines += ["", f"| {' | '.join(HEAD)} |", f"|{'---:|' * len(HEAD)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(result)]
    if result["advice"]:
        lines += ["", *(f"- {escaped(text)}" for text in result["advice"])]
    return "\n".join(lines) + "\n"


def slots_page(result: Result) -> str:
    """Return the result as one page: how many answers began at once in each burst, the facts, the advice."""
    rows = [Strip(f"{size['k']} sent", [float(count) for count in size["at_once"]]) for size in result["sizes"]]
    facts = "".join(f"<li><b>{escape(label)}</b> {escape(text)}</li>" for label, text in _facts(result))
    advice = "".join(f"<li>{escape(text)}</li>" for text in result["advice"])
    picture = strips(rows, "answers that began at once, one dot a burst", result["slots"]["value"])
    return page(
        "slots",
        [escape(_target(result))],
        [
            section("Bursts", picture + table(HEAD, _rows(result))),
            section("Found", f"<ul>{facts}</ul>"),
            section("What to set", f"<ul>{advice}</ul>" if advice else ""),
        ],
    )


def _row(cells: Sequence[str]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, COLUMNS, strict=True))


def _target(result: Result) -> str:
    target = result["target"]
    return " · ".join(str(target[key]) for key in ("url", "version", "model") if target.get(key))


def _facts(result: Result) -> list[tuple[str, str]]:
    facts = [("slots", _slots(result))]
    told = result["told"]
    if told is None:
        facts.append(("it says", "nothing about its slots"))
    else:
        facts.append(("it says", f"{told['slots']} ({told['from']}), {TOLD[told['verdict']]}"))
    if result["turned_away"]:
        facts.append(("turned away", result["turned_away"]))
    cache = result["cache"]
    if cache is not None:
        facts.append(("prefix cache", cache["sentence"]))
        if cache["fresh_ttft_ms"] is not None:
            facts.append(("", _cache_figures(cache)))
        if cache["told"]:
            facts.append(("", f"it says: {cache['told']}"))
    return facts


def _slots(result: Result) -> str:
    estimate = result["slots"]
    if result["verdict"] == "inconclusive":
        begin = f"inconclusive: {result['reason']}"
        return begin if estimate["low"] is None else f"{begin} (at least {estimate['low']:g} were worked on at once)"
    notes = "; ".join(estimate["notes"])
    if result["verdict"] == "at-least":
        return f"at least {estimate['low']:g} ({notes})"
    low, high = estimate["low"], estimate["high"]
    sure = f"{100 * estimate['confidence']:.1f} %" if estimate["confidence"] < 0.999 else "over 99.9 %"
    return f"{estimate['value']:g} ({sure} sure of {f'{low:g}' if low == high else f'{low:g} to {high:g}'}; {notes})"


def _cache_figures(cache: Mapping[str, Any]) -> str:
    ratio, control = cache["ratio"], cache["control"]
    return (
        f"TTFT {cache['fresh_ttft_ms']:.4g} ms fresh, {cache['repeat_ttft_ms']:.4g} ms repeated; ratio "
        f"{figures.value(ratio)} {figures.interval(ratio)}, of two fresh ones {figures.value(control)} "
        f"{figures.interval(control)}; {ratio['n']} trios"
    )


def _rows(result: Result) -> list[list[str]]:
    rows = []
    for size in result["sizes"]:
        counts = sorted(set(size["at_once"]))
        began = "–" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"
        figures_ = (size["ttft_first_ms"], size["ttft_last_ms"], size["output_tokens_per_s"])
        cells = ["–" if figure is None else f"{figure:.4g}" for figure in figures_]
        rows.append([str(size["k"]), began, f"{size['undecided']}/{size['bursts']}", *cells])
    return rows
