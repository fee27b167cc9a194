"""A comparison as text of 80 columns, and as markdown. Both are made from the comparison's JSON alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.report import figures
from analysis.report.words import clean, wrapped

__all__ = [
    "agreement",
    "answer_in_words",
    "comparison_markdown",
    "comparison_text",
    "detectable_in_words",
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
]

MOST_DECIMALS = 4
LABEL, COLUMN, RATIO = 18, 8, 24

Comparison = Mapping[str, Any]
Shown = Mapping[str, Any]


def comparison_text(comparison: Comparison) -> str:
    """Return the report, no line wider than 80 columns, ending in a newline."""
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
    for name in ("a", "b"):
        lines += wrapped(side_in_words(comparison[name]), f"{name.upper()}  ", "   ")
    return [*lines, *wrapped(how_in_words(comparison))]


def side_in_words(side: Shown) -> str:
    parts = [side["directory"] + (f", arm {side['arm']}" if side["arm"] else "")]
    parts += [str(target[key]) for target in side["targets"] for key in ("url", "model") if target.get(key)]
    parts.append(f"{side['runs']} run{'s' if side['runs'] != 1 else ''}, {side['requests']} requests")
    return " · ".join(parts)


def how_in_words(comparison: Comparison) -> str:
    k = comparison["family"]["size"]
    family = f"family of {k} metrics, Holm" if k != 1 else "one metric"
    return f"{comparison['pairing']} · margin {100 * comparison['margin']:.3g} % · {family}"


def _table(comparison: Comparison) -> list[str]:
    head = f"{'':<{LABEL}}{'A':>{COLUMN}}{'B':>{COLUMN}}  {'B/A and 95 % interval':<{RATIO}}verdict"
    lines = [head]
    for shown in comparison["metrics"].values():
        cells = (value_in_words(shown, side) for side in ("a", "b"))
        label = f"{shown['label']} {shown['unit']}" if shown["unit"] == "ms" else shown["label"]
        row = f"{label:<{LABEL}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells)
        lines.append(f"{row}  {interval_in_words(shown):<{RATIO}}{verdict_in_words(shown)}".rstrip())
        if shown["p"] is not None:
            beside = family_in_words(shown) if comparison["family"]["size"] > 1 else ""
            p = f"p {p_in_words(shown['p'])}" + (f" ({p_in_words(shown['p_holm'])})" if beside else "")
            lines.append(f"{'':<{LABEL + 2 * COLUMN + 2}}{beside:<{RATIO}}{p}".rstrip())
    if comparison["family"]["size"] > 1:
        level = 1 - (1 - comparison["confidence"]) / comparison["family"]["size"]
        lines += wrapped(
            f"below each: the interval at {100 * level:.1f} % that holds for all at once, p, and in brackets Holm's p, "
            "which decides",
            "  ",
        )
    return lines


def value_in_words(shown: Shown, side: str) -> str:
    value: float | None = shown[side]["value"]
    if value is None:
        return figures.REFUSED
    return f"{value:.1%}" if shown["scale"] == "points" else f"{value:.4g}"


def interval_in_words(shown: Shown) -> str:
    """Return `1.095 [1.070, 1.120]`; of a success rate, the points between."""
    estimate = shown["b_to_a"]
    if estimate["value"] is None:
        return figures.REFUSED
    if shown["scale"] == "points":
        return _points(estimate)
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    decimals = max(0, min(MOST_DECIMALS, figures.decimals_for(estimate)))
    value, low, high = (figures.number(estimate[key], decimals) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def family_in_words(shown: Shown) -> str:
    beside = shown["family_interval"]
    if shown["scale"] == "points":
        return f"[{100 * beside['low']:+.1f}, {100 * beside['high']:+.1f}]"
    decimals = max(0, min(MOST_DECIMALS, figures.decimals_for(shown["b_to_a"])))
    return f"[{figures.number(beside['low'], decimals)}, {figures.number(beside['high'], decimals)}]"


def _points(estimate: Shown) -> str:
    value = f"{100 * estimate['value']:+.1f} pt"
    return (
        value if estimate["low"] is None else f"{value} [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"
    )


def verdict_in_words(shown: Shown) -> str:
    verdict: str = shown["verdict"]
    if verdict == "different":
        return f"different: {shown['direction']}"
    return "different, negligible" if verdict == "different but negligible" else verdict


def p_in_words(p: float) -> str:
    return "< .0001" if p < 1e-4 else f"{p:.2g}".replace("0.", ".", 1)


def _doubts(comparison: Comparison) -> list[str]:
    lines = []
    for text in doubts(comparison):
        lines += wrapped(text)
    return lines


def doubts(comparison: Comparison) -> list[str]:
    """Return why a metric is inconclusive, what would have been found, and what else must be known of it."""
    texts: dict[str, list[str]] = {}
    for shown in comparison["metrics"].values():
        if shown["why"]:
            texts.setdefault(f"inconclusive: {shown['why']}", []).append(shown["label"])
        if shown["detectable"]:
            texts.setdefault(_detectable(shown, comparison["margin"]), []).append(shown["label"])
        for note in shown["notes"]:
            texts.setdefault(note, []).append(shown["label"])
    return [f"{', '.join(labels)}: {text}" for text, labels in texts.items()]


def _detectable(shown: Shown, margin: float) -> str:
    """Return the minimum detectable effect, and the runs needed to see one as large as the margin."""
    told = shown["detectable"]
    if shown["scale"] == "points":
        least, wanted = f"a difference of {100 * told['least']:.1f} points", f"{100 * margin:.3g} points"
    else:
        least, wanted = f"a ratio of {told['least']:.3f}", f"{1 + margin:g}"
    return detectable_in_words(told, least, wanted)


def detectable_in_words(told: Mapping[str, Any], least: str, wanted: str) -> str:
    """Return what so many runs find, and how many find what is wanted. told: as `planning.Detectable` has it."""
    text = f"so many runs find {least} {told['power']:.0%} of the time"
    needed = told["runs_needed"]
    if needed is None:
        return f"{text}; for {wanted} no number of runs is enough"
    if needed <= told["runs"]:
        return f"{text}; the truth seems to lie near the margin, which takes more runs than its {needed}"
    return f"{text}; for {wanted}: {needed} runs a side"


def _agreement(comparison: Comparison) -> list[str]:
    text = agreement(comparison)
    return wrapped(text) if text else []


def agreement(comparison: Comparison) -> str:
    """Return whether exact tests on ranks or signs, which assume less, say the same as the t test."""
    asked = {name: shown for name, shown in comparison["metrics"].items() if shown["secondary"]}
    if not asked:
        return ""
    test = next(iter(asked.values()))["secondary"]
    answers = [shown for shown in asked.values() if shown["secondary"]["agrees"] is not None]
    if not answers:
        return f"no exact {test['exact_test']} test: with so few runs its p cannot go below {test['least_p']:.3g}"
    against = [
        f"{shown['label']} (p {p_in_words(shown['secondary']['exact_p'])} against {p_in_words(shown['p'])})"
        for shown in answers
        if not shown["secondary"]["agrees"]
    ]
    text = f"the exact {test['exact_test']} test agrees on {len(answers) - len(against)} of {len(answers)} metrics"
    return f"{text}; not on {', '.join(against)}" if against else text


def _fairness(comparison: Comparison) -> list[str]:
    lines = ["fairness"]
    for text in fairness_in_words(comparison["fairness"]):
        lines += wrapped(text, "  ", "    ")
    for note in comparison["notes"]:
        lines += wrapped(note, "  ", "    ")
    return lines


def fairness_in_words(fair: Shown) -> list[str]:
    facts = fair["facts"]
    same = [fact["name"] for fact in facts if fact["same"]]
    unknown = [fact["name"] for fact in facts if fact["same"] is None]
    lines = [f"same: {', '.join(same)}"] if same else []
    lines += [
        f"different: {fact['name']}: {fact_in_words(fact['a'])} | {fact_in_words(fact['b'])}"
        for fact in facts
        if fact["same"] is False
    ]
    lines += [f"not known on both sides: {', '.join(unknown)}"] if unknown else []
    prompts, lengths = fair["prompts"], fair["output_tokens"]
    lines.append(
        f"request bodies: {prompts['shared']} the same, of {prompts['a']} and {prompts['b']}"
        + (
            f"; output tokens a request: {lengths['a']:.4g} and {lengths['b']:.4g}"
            if lengths["a"] is not None and lengths["b"] is not None
            else ""
        )
    )
    return lines + list(fair["notes"])


def fact_in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {fact_in_words(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return " + ".join(fact_in_words(inner) for inner in value) or "none"
    return "none" if value is None else str(value)


def _answer(comparison: Comparison) -> list[str]:
    return wrapped(answer_in_words(comparison))


def answer_in_words(comparison: Comparison) -> str:
    """Return one sentence with every verdict in it."""
    verdicts: dict[str, list[str]] = {}
    for shown in comparison["metrics"].values():
        words = verdict_in_words(shown)
        words = f"B is {shown['direction']}" if words.startswith("different: ") else words
        verdicts.setdefault(words, []).append(shown["label"])
    return "; ".join(f"{words}: {', '.join(labels)}" for words, labels in verdicts.items()) or "nothing to compare"


def comparison_markdown(comparison: Comparison) -> str:
    """Return the same as markdown, for an issue or a pull request."""
    lines = ["# Comparison", ""]
    lines += [f"- **{name.upper()}**: {_escaped(side_in_words(comparison[name]))}" for name in ("a", "b")]
    lines += [f"- {how_in_words(comparison)}", ""]
    rows = [["metric", "A", "B", "B/A, 95 % interval", "interval of the family", "p", "Holm's p", "verdict"]]
    for shown in comparison["metrics"].values():
        known = shown["p"] is not None
        rows.append(
            [
                f"{shown['label']}{', ms' if shown['unit'] == 'ms' else ''}",
                value_in_words(shown, "a"),
                value_in_words(shown, "b"),
                interval_in_words(shown),
                family_in_words(shown) if known else "",
                p_in_words(shown["p"]) if known else "",
                p_in_words(shown["p_holm"]) if known else "",
                f"**{verdict_in_words(shown)}**",
            ]
        )
    lines += [_row(rows[0]), _row(["---"] * len(rows[0])), *(_row(row) for row in rows[1:]), ""]
    told = [*doubts(comparison), *filter(None, [agreement(comparison)])]
    lines += [f"- {_escaped(text)}" for text in told]
    lines += ["", "## Fairness", ""]
    lines += [f"- {_escaped(text)}" for text in [*fairness_in_words(comparison["fairness"]), *comparison["notes"]]]
    return "\n".join([*lines, "", answer_in_words(comparison)]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _escaped(text: str) -> str:
    """What comes from a server or a path must not become markup."""
    return clean(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
