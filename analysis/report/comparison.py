"""A comparison as text of 80 columns, and as markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from analysis.compare.comparison import Compared, Comparison, Scale, SideFacts
from analysis.compare.fairness import Fairness
from analysis.estimate import Figure
from analysis.report import figures
from analysis.report.words import clean, detectable_in_words, wrapped
from analysis.stats.equivalence import ComparisonVerdict
from analysis.stats.planning import Seen

__all__ = [
    "agreement",
    "answer_in_words",
    "comparison_markdown",
    "comparison_text",
    "doubts",
    "fact_in_words",
    "fairness_in_words",
    "family_in_words",
    "how_in_words",
    "interval_in_words",
    "p_in_words",
    "side_in_words",
    "value_in_words",
    "verdict_in_words",
    "work_in_words",
]

MOST_DECIMALS = 4
LABEL, COLUMN, RATIO = 18, 8, 24


def comparison_text(comparison: Comparison) -> str:
    """The report, no line wider than 80 columns, ending in a newline."""
    blocks = [
        _sides(comparison),
        _table(comparison),
        _doubts(comparison),
        _agreement(comparison),
        _fairness(comparison),
        _answer(comparison),
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


def _sides(comparison: Comparison) -> list[str]:
    lines = []
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        lines += wrapped(side_in_words(side), f"{name}  ", "   ")
    return [*lines, *wrapped(how_in_words(comparison))]


def side_in_words(side: SideFacts) -> str:
    parts = [side.directory + (f", arm {side.arm}" if side.arm else "")]
    parts += [text for target in side.targets for text in (target.url, target.model) if text]
    parts.append(f"{side.runs} run{'s' if side.runs != 1 else ''}, {side.requests} requests")
    return " · ".join(parts)


def how_in_words(comparison: Comparison) -> str:
    k = comparison.family.size
    family = f"family of {k} metrics, Holm" if k != 1 else "one metric"
    return f"{comparison.pairing} · margin {100 * comparison.margin:.3g} % · {family}"


def _table(comparison: Comparison) -> list[str]:
    head = f"{'':<{LABEL}}{'A':>{COLUMN}}{'B':>{COLUMN}}  {'B/A and 95 % interval':<{RATIO}}verdict"
    lines = [head]
    for shown in comparison.metrics.values():
        cells = (value_in_words(side.value, shown.scale) for side in (shown.a, shown.b))
        label = f"{shown.label} {shown.unit}" if shown.unit == "ms" else shown.label
        row = f"{label:<{LABEL}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells)
        lines.append(f"{row}  {interval_in_words(shown):<{RATIO}}{verdict_in_words(shown)}".rstrip())
        if shown.p is not None:
            beside = family_in_words(shown) if comparison.family.size > 1 else ""
            p = f"p {p_in_words(shown.p)}" + (f" ({p_in_words(shown.p_holm)})" if beside else "")
            lines.append(f"{'':<{LABEL + 2 * COLUMN + 2}}{beside:<{RATIO}}{p}".rstrip())
    if comparison.family.size > 1:
        level = 1 - (1 - comparison.confidence) / comparison.family.size
        lines += wrapped(
            f"below each: the interval at {100 * level:.1f} % that holds for all at once, p, and in brackets Holm's p, "
            "which decides",
            "  ",
        )
    return lines


def value_in_words(value: float | None, scale: Scale) -> str:
    if value is None:
        return figures.REFUSED
    return f"{value:.1%}" if scale is Scale.POINTS else f"{value:.4g}"


def interval_in_words(shown: Compared) -> str:
    """`1.095 [1.070, 1.120]`; of a success rate, the points between."""
    estimate = shown.b_to_a
    if estimate.value is None:
        return figures.REFUSED
    if shown.scale is Scale.POINTS:
        return _points(estimate.value, estimate.low, estimate.high)
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    decimals = _decimals(estimate)
    value, low, high = (figures.number(edge, decimals) for edge in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def family_in_words(shown: Compared) -> str:
    beside = shown.family_interval
    if beside is None or beside.low is None or beside.high is None:
        return ""
    if shown.scale is Scale.POINTS:
        return f"[{100 * beside.low:+.1f}, {100 * beside.high:+.1f}]"
    decimals = _decimals(shown.b_to_a)
    return f"[{figures.number(beside.low, decimals)}, {figures.number(beside.high, decimals)}]"


def _decimals(estimate: Figure) -> int:
    return max(0, min(MOST_DECIMALS, figures.decimals_for(msgspec.to_builtins(estimate))))


def _points(value: float, low: float | None, high: float | None) -> str:
    points = f"{100 * value:+.1f} pt"
    return points if low is None or high is None else f"{points} [{100 * low:+.1f}, {100 * high:+.1f}]"


def verdict_in_words(shown: Compared) -> str:
    if shown.verdict is ComparisonVerdict.DIFFERENT:
        return f"different: {shown.direction}"
    return "different, negligible" if shown.verdict is ComparisonVerdict.NEGLIGIBLE else shown.verdict


def p_in_words(p: float | None) -> str:
    if p is None:
        return ""
    return "< .0001" if p < 1e-4 else f"{p:.2g}".replace("0.", ".", 1)


def _doubts(comparison: Comparison) -> list[str]:
    lines = []
    for text in doubts(comparison):
        lines += wrapped(text)
    return lines


def doubts(comparison: Comparison) -> list[str]:
    """Why a metric is inconclusive, what would have been found, and what else must be known of it."""
    texts: dict[str, list[str]] = {}
    for shown in comparison.metrics.values():
        if shown.why:
            texts.setdefault(f"inconclusive: {shown.why}", []).append(shown.label)
        if shown.detectable:
            texts.setdefault(_detectable(shown.detectable, shown.scale, comparison.margin), []).append(shown.label)
        for note in shown.notes:
            texts.setdefault(note, []).append(shown.label)
    return [f"{', '.join(labels)}: {text}" for text, labels in texts.items()]


def _detectable(seen: Seen, scale: Scale, margin: float) -> str:
    """The minimum detectable effect, and the runs needed to see one as large as the margin."""
    if scale is Scale.POINTS:
        return detectable_in_words(seen, f"a difference of {100 * seen.least:.1f} points", f"{100 * margin:.3g} points")
    return detectable_in_words(seen, f"a ratio of {seen.least:.3f}", f"{1 + margin:g}")


def _agreement(comparison: Comparison) -> list[str]:
    text = agreement(comparison)
    return wrapped(text) if text else []


def agreement(comparison: Comparison) -> str:
    """Whether exact tests on ranks or signs, which assume less, say the same as the t test."""
    tests = [(shown, shown.secondary) for shown in comparison.metrics.values() if shown.secondary is not None]
    if not tests:
        return ""
    _, first = tests[0]
    answers = [(shown, test) for shown, test in tests if test.agrees is not None]
    if not answers:
        return f"no exact {first.exact_test} test: with so few runs its p cannot go below {first.least_p:.3g}"
    against = [
        f"{shown.label} (p {p_in_words(test.exact_p)} against {p_in_words(shown.p)})"
        for shown, test in answers
        if not test.agrees
    ]
    text = f"the exact {first.exact_test} test agrees on {len(answers) - len(against)} of {len(answers)} metrics"
    return f"{text}; not on {', '.join(against)}" if against else text


def _fairness(comparison: Comparison) -> list[str]:
    lines = ["fairness"]
    for text in fairness_in_words(comparison.fairness):
        lines += wrapped(text, "  ", "    ")
    for note in comparison.notes:
        lines += wrapped(note, "  ", "    ")
    return lines


def fairness_in_words(fair: Fairness) -> list[str]:
    same = [fact.name for fact in fair.facts if fact.same]
    unknown = [fact.name for fact in fair.facts if fact.same is None]
    lines = [f"same: {', '.join(same)}"] if same else []
    lines += [
        f"different: {fact.name}: {fact_in_words(fact.a)} | {fact_in_words(fact.b)}"
        for fact in fair.facts
        if fact.same is False
    ]
    lines += [f"not known on both sides: {', '.join(unknown)}"] if unknown else []
    return [*lines, work_in_words(fair), *fair.notes]


def work_in_words(fair: Fairness) -> str:
    """How much of the work was the same."""
    prompts, lengths = fair.prompts, fair.output_tokens
    text = f"request bodies: {prompts.shared} the same, of {prompts.a} and {prompts.b}"
    if lengths.a is None or lengths.b is None:
        return text
    return f"{text}; output tokens a request: {lengths.a:.4g} and {lengths.b:.4g}"


def fact_in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact_in_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " + ".join(fact_in_words(inner) for inner in value) or "none"
    return "none" if value is None else str(value)


def _answer(comparison: Comparison) -> list[str]:
    return wrapped(answer_in_words(comparison))


def answer_in_words(comparison: Comparison) -> str:
    """One sentence with every verdict in it."""
    verdicts: dict[str, list[str]] = {}
    for shown in comparison.metrics.values():
        different = shown.verdict is ComparisonVerdict.DIFFERENT
        words = f"B is {shown.direction}" if different else verdict_in_words(shown)
        verdicts.setdefault(words, []).append(shown.label)
    return "; ".join(f"{words}: {', '.join(labels)}" for words, labels in verdicts.items()) or "nothing to compare"


def comparison_markdown(comparison: Comparison) -> str:
    """The same as markdown, for an issue or a pull request."""
    lines = ["# Comparison", ""]
    sides = (("A", comparison.a), ("B", comparison.b))
    lines += [f"- **{name}**: {_escaped(side_in_words(side))}" for name, side in sides]
    lines += [f"- {how_in_words(comparison)}", ""]
    rows = [["metric", "A", "B", "B/A, 95 % interval", "interval of the family", "p", "Holm's p", "verdict"]]
    for shown in comparison.metrics.values():
        rows.append(
            [
                f"{shown.label}{', ms' if shown.unit == 'ms' else ''}",
                value_in_words(shown.a.value, shown.scale),
                value_in_words(shown.b.value, shown.scale),
                interval_in_words(shown),
                family_in_words(shown),
                p_in_words(shown.p),
                p_in_words(shown.p_holm),
                f"**{verdict_in_words(shown)}**",
            ]
        )
    lines += [_row(rows[0]), _row(["---"] * len(rows[0])), *(_row(row) for row in rows[1:]), ""]
    texts = [*doubts(comparison), *filter(None, [agreement(comparison)])]
    lines += [f"- {_escaped(text)}" for text in texts]
    lines += ["", "## Fairness", ""]
    lines += [f"- {_escaped(text)}" for text in [*fairness_in_words(comparison.fairness), *comparison.notes]]
    return "\n".join([*lines, "", answer_in_words(comparison)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """What comes from a server or a path must not become markup."""
    return clean(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
