"""A comparison of the client's runtimes for people: text of 80 columns, and markdown, both made from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from analysis.report import figures
from analysis.report.page import Strip, page, section, strips, table
from analysis.report.words import detectable_in_words, wrapped
from analysis.stats.planning import Seen

__all__ = ["runtimes_markdown", "runtimes_page", "runtimes_text"]

NAME = 12
Line = Mapping[str, Any]
Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, head, rows

TITLES = {
    "efficiency": "Parallel efficiency, %: solo times over N times the makespan (what was gained)",
    "overlap_efficiency": "Overlap efficiency, %: the guide's figure, blind to both agents slowing down",
}
SPREAD = ("variant", "runs", "peak", "mean", "95 %", "median", "SD runs", "SD conf", "min")
# Of the columns of text, after the name: widths.
WIDTHS = {
    "settings": (10, 10, 10, 10, 28),
    "spread": (6, 8, 8, 13, 8, 9, 9, 7),
    "loop": (11, 20, 9, 9, 9, 8),
    "pairs": (12, 10, 16, 9, 21),
}


def runtimes_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as text, no line wider than 80 columns, ending in a newline."""
    parts = ["\n".join(wrapped(_head(summary)))]
    for kind, (title, head, rows) in _tables(summary):
        widths = WIDTHS[kind]
        parts.append("\n".join([*wrapped(title), *(_row(cells, widths) for cells in (head, *rows))]))
    parts.append("\n".join(line for text in _facts(summary) for line in wrapped(text)))
    return "\n\n".join(part for part in parts if part) + "\n"


def runtimes_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as a section of markdown, ending in a newline."""
    lines = ["## Runtimes", "", _head(summary)]
    for _, (title, head, rows) in _tables(summary):
        lines += ["", f"### {title}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    lines += ["", *(f"- {text}" for text in _facts(summary))]
    return "\n".join(lines) + "\n"


def runtimes_page(summary: Mapping[str, Any]) -> str:
    """Return the summary as one page: each variant's efficiency with its interval, then the tables."""
    pictures = [
        section(title, strips(rows, "% (mean with its 95 % interval; dots: least, mean, peak)"))
        for figure, title in TITLES.items()
        if (rows := [_strip(line["name"], line[figure]) for line in summary["variants"] if line[figure]["runs"]])
    ]
    tables = [section(title, table(head, rows)) for _, (title, head, rows) in _tables(summary)]
    facts = "".join(f"<li>{escape(text)}</li>" for text in _facts(summary))
    return page("runtimes", [escape(_head(summary))], [*pictures, section("Found", f"<ul>{facts}</ul>"), *tables])


def _strip(name: str, one: Line) -> Strip:
    mean = _in_percent(one["mean"])
    dots = [100 * one[key] for key in ("minimum", "peak") if one[key] is not None]
    return Strip(name, [*dots, *([mean["value"]] if mean["value"] is not None else [])], mean["low"], mean["high"])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    row = f"{first:<{NAME}}" + "".join(f"{cell:>{width}}" for cell, width in zip(rest, widths, strict=False))
    return row.rstrip()


def _head(summary: Mapping[str, Any]) -> str:
    many = summary["configurations"]
    configurations = f"{many} configurations" if many != 1 else "one configuration"
    return (
        f"{len(summary['variants'])} variants, {configurations}, {summary['blocks']} blocks in {summary['order']} "
        f"order, seed {summary['seed']}; each run in a fresh process"
    )


def _tables(summary: Mapping[str, Any]) -> list[tuple[str, Table]]:
    lines = summary["variants"]
    tables: list[tuple[str, Table]] = [("settings", _settings(lines))]
    for figure, title in TITLES.items():
        if any(line[figure]["runs"] for line in lines):
            tables.append(("spread", (title, SPREAD, [_spread(line["name"], line[figure]) for line in lines])))
    tables.append(("loop", _loop(lines)))
    for one in summary["comparisons"]:
        if _is_shown(one, summary):
            tables += [("pairs", _pairs(one, pairs, how)) for how, pairs in _families(one) if pairs]
    return tables


def _families(one: Line) -> list[tuple[str, list[Line]]]:
    return [("all pairs by Games-Howell", one["pairs"]), (f"against {one['against']} by Dunnett", one["dunnett"])]


def _is_shown(one: Line, summary: Mapping[str, Any]) -> bool:
    """Whether the pairs are printed: of the truest figure there is, and of the makespan."""
    known = [each["figure"] for each in summary["comparisons"]]
    return one["figure"] in (known[0], "makespan_s")


def _settings(lines: Sequence[Line]) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            line["name"],
            line["tier"],
            line["loop"],
            _size(line["read_bytes"]) if line["tier"] == "kernel" else "its own",
            "all" if line["permits"] is None else str(line["permits"]),
            ", ".join(f"{verdict} {count}" for verdict, count in line["verdicts"].items()) or "not measured",
        )
        for line in lines
    ]
    return "Variants", ("variant", "tier", "loop", "reads", "permits", "verdicts"), rows


def _size(read_bytes: int | None) -> str:
    return "8 KiB up" if read_bytes is None else f"{read_bytes / 1024:g} KiB"


def _spread(name: str, one: Line) -> tuple[str, ...]:
    return (
        name,
        str(one["runs"]),
        _percent(one["peak"]),
        _percent(one["mean"]["value"]),
        figures.interval(_in_percent(one["mean"]), 12) or figures.REFUSED,
        _percent(one["median"]),
        _percent(one["sd_of_runs"]),
        _percent(one["sd_of_configuration_means"]),
        _percent(one["minimum"]),
    )


def _percent(share: float | None) -> str:
    return figures.REFUSED if share is None else f"{100 * share:.2f}"


def _in_percent(estimate: Line) -> dict[str, Any]:
    return {
        **estimate,
        **{key: None if estimate[key] is None else 100 * estimate[key] for key in ("value", "low", "high")},
    }


def _loop(lines: Sequence[Line]) -> Table:
    rows: list[tuple[str, ...]] = []
    for line in lines:
        lag, makespan, contended = line["loop_lag_ms"], line["makespan_s"]["mean"], line["contended"]
        rows.append(
            (
                line["name"],
                f"{contended['runs']} of {contended['of']}",
                f"{figures.value(makespan)} {figures.interval(makespan, 10)}".strip(),
                *(figures.REFUSED if lag[key] is None else f"{lag[key]:.3g}" for key in ("p50", "p99", "max")),
                _percent(line["cpu_share"]),
            )
        )
    rule = lines[0]["contended"]["rule"] if lines else ""
    return (
        f"Contended runs by the rule {rule}, makespan of the concurrent runs in s, event-loop lag in ms, CPU share",
        ("variant", "contended", "makespan s", "lag p50", "lag p99", "lag max", "CPU %"),
        rows,
    )


def _pairs(one: Line, pairs: Sequence[Line], how: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (
            pair["a"],
            pair["b"],
            figures.value(pair["ratio"]),
            figures.interval(pair["ratio"], 15),
            f"{pair['p']:.2g}",
            VERDICTS.get(str(pair["verdict"]), str(pair["verdict"])),
        )
        for pair in pairs
    ]
    return (
        f"Ratios of {NAMES[one['figure']]}, a/b: {how}; interval, p and verdict over the family of {len(pairs)}",
        ("a", "b", "ratio", "95 %", "p", "verdict"),
        rows,
    )


NAMES = {
    "efficiency": "parallel efficiency",
    "overlap_efficiency": "overlap efficiency",
    "makespan_s": "makespan",
}
VERDICTS = {"different but negligible": "diff., negligible"}


def _facts(summary: Mapping[str, Any]) -> list[str]:
    facts = [f"{name} left out: {reason}" for name, reason in summary["left_out"].items()]
    if summary["missing"]:
        facts.append(f"incomplete or missing: {', '.join(summary['missing'])}")
    facts += [f"{cell['directory']}: {cell['error']}" for cell in summary["cells"] if cell["error"]]
    if summary["control"] is not None:
        facts.append(_control(summary["control"]))
    facts += [
        f"{' and '.join(names)} are the same settings: what lies between them is noise" for names in summary["same"]
    ]
    for one in summary["comparisons"]:
        ranks = "" if one["kruskal"] is None else f"; by ranks (Kruskal-Wallis) p {one['kruskal']['p']:.2g}"
        facts.append(f"{NAMES[one['figure']]}: {one['conclusion']}{ranks}")
        if one["not_tested"] and one["variants"]:
            facts.append(f"too few runs to be tested: {', '.join(one['not_tested'])}")
        if _is_shown(one, summary):
            facts += [
                f"{NAMES[one['figure']]}, {how}, where inconclusive: {_detectable(told, summary['margin'])}"
                for how, pairs in _families(one)
                if (told := [pair["detectable"] for pair in pairs if pair["detectable"]])
            ]
    return list(dict.fromkeys(facts))


def _detectable(told: Sequence[Line], margin: float) -> str:
    """Return what several pairs could have seen: from the best of them to the worst, and what the worst needs."""
    worst = max(told, key=lambda one: one["least"])
    least = [f"{one['least']:.3f}" for one in (min(told, key=lambda one: one["least"]), worst)]
    between = least[1] if least[0] == least[1] else f"{least[0]} to {least[1]}, by the pair,"
    return detectable_in_words(msgspec.convert(worst, Seen), f"a ratio of {between}", f"{1 + margin:g}")


def _control(control: Line) -> str:
    shown = []
    for figure, told in control["figures"].items():
        known = _in_percent(told["estimate"])
        verdict = "as it must be" if told["holds"] else "which it should NOT be"
        shown.append(f"{NAMES[figure]} {known['value']:.2f} % {figures.interval(known)}".strip() + f", {verdict}")
    return f"control {control['variant']}, {100 * control['expected']:.1f} % by design: {'; '.join(shown)}"
