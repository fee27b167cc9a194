"""A comparison as a document: the sides, the ratios with their verdicts, what is in doubt, the fairness, the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis.compare.comparison import Change, Compared, Comparison, Scale, SideFacts
from analysis.compare.fairness import Fairness
from analysis.estimate import Figure
from analysis.report import document, numbers
from analysis.report.document import (
    MARKDOWN,
    PAGE,
    TEXT,
    Align,
    Bullets,
    Cell,
    Column,
    Document,
    Doubts,
    Facts,
    Paragraph,
    Place,
    Plot,
    PlotRow,
    Row,
    Section,
    Strong,
    Table,
    Tone,
    Words,
)
from analysis.report.words import detectable_in_words
from analysis.stats.equivalence import ComparisonVerdict
from analysis.stats.planning import Seen

__all__ = ["comparison_document"]

MOST_DECIMALS = 4
WIDE = MARKDOWN | PAGE  # media with room for more columns than a terminal has


def comparison_document(comparison: Comparison) -> Document:
    """The document about a comparison."""
    named = (("A", comparison.a), ("B", comparison.b))
    sides = tuple((Strong(name), f": {_side(side)}") for name, side in named)
    how, answer, doubts, agreement = _how(comparison), _answer(comparison), _doubts(comparison), _agreement(comparison)
    head = (
        Facts([(name, _side(side)) for name, side in named], width=3, only=TEXT),
        Paragraph(how, only=TEXT),
        Bullets((*sides, how), only=WIDE),
        Paragraph(Strong(answer), only=PAGE),
    )
    sections = [
        Section("B/A", (_plot(comparison, answer), *_plot_legend(comparison)), only=PAGE),
        Section("Metrics", (*_in_text(comparison),), text_title="", only=TEXT),
        Section("", (_table(comparison), Bullets(list(filter(None, [*doubts, agreement])))), only=WIDE),
        Section("", (Bullets(doubts),), only=TEXT),
        Section("", (Paragraph(agreement),) if agreement else (), only=TEXT),
        Section("Fairness", tuple(_fairness(comparison)), text_title="fairness"),
        Section("", (Paragraph(answer),), only=TEXT | MARKDOWN),
    ]
    return Document("Comparison", sections, head)


# --- the sides -------------------------------------------------------------------------------------------------------


def _side(side: SideFacts) -> str:
    parts = [side.directory + (f", arm {side.arm}" if side.arm else "")]
    parts += [text for target in side.targets for text in (target.url, target.model) if text]
    parts.append(f"{side.runs} run{'s' if side.runs != 1 else ''}, {side.requests} requests")
    return " · ".join(parts)


def _how(comparison: Comparison) -> str:
    k = comparison.family.size
    family = f"family of {k} metrics, Holm" if k != 1 else "one metric"
    return f"{comparison.pairing} · margin {100 * comparison.margin:.3g} % · {family}"


# --- the metrics -----------------------------------------------------------------------------------------------------


def _in_text(comparison: Comparison) -> Iterable[Table | Paragraph]:
    """The metrics in 80 columns: under each line the interval of the family and p."""
    columns = (
        Column("", 18, Align.LEFT),
        Column("A", 8),
        Column("B", 8),
        Column("B/A and 95 % interval", 24, Align.LEFT, gap=2),
        Column("verdict", 1),
    )
    many = comparison.family.size > 1
    rows = []
    for metric in comparison.metrics.values():
        label = f"{metric.label} {metric.unit}" if metric.unit == "ms" else metric.label
        values = (_value(side.value, metric.scale) for side in (metric.a, metric.b))
        rows.append(Row((label, *values, _interval(metric), _verdict(metric))))
        if metric.p is not None:
            beside = _family(metric) if many else ""
            p = f"p {_p(metric.p)}" + (f" ({_p(metric.p_holm)})" if beside else "")
            rows.append(Row(("", "", "", beside, p)))
    yield Table(columns, rows)
    if many:
        level = 1 - (1 - comparison.confidence) / comparison.family.size
        yield Paragraph(
            f"below each: the interval at {100 * level:.1f} % that holds for all at once, p, and in brackets Holm's p, "
            "which decides",
            indent=2,
            hang=0,
        )


def _table(comparison: Comparison) -> Table:
    tests = (metric.secondary.exact_test for metric in comparison.metrics.values() if metric.secondary)
    columns = (
        Column("metric", align=Align.LEFT),
        Column("A"),
        Column("B"),
        Column("B/A, 95 % interval"),
        Column("interval of the family"),
        Column("p"),
        Column("Holm's p"),
        Column(f"p, exact {next(tests, '')}".rstrip(), only=PAGE),
        Column("verdict", align=Align.LEFT),
    )
    return Table(columns, [_row(metric) for metric in comparison.metrics.values()], Doubts(markdown=Place.HIDDEN))


def _row(metric: Compared) -> Row:
    return Row(
        (
            f"{metric.label}{', ms' if metric.unit == 'ms' else ''}",
            *(Cell(_value(side.value, metric.scale), beside=f"{side.n} runs") for side in (metric.a, metric.b)),
            _interval(metric),
            _family(metric),
            _p(metric.p),
            _p(metric.p_holm),
            _p(metric.secondary.exact_p) if metric.secondary else "",
            Cell(Strong(_verdict(metric)), tone=_tone(metric)),
        )
    )


def _tone(metric: Compared) -> Tone:
    if metric.verdict is ComparisonVerdict.INCONCLUSIVE:
        return Tone.WARN
    if metric.verdict is ComparisonVerdict.DIFFERENT:
        return Tone.BAD if metric.direction is Change.WORSE else Tone.GOOD
    return Tone.DIM


def _plot(comparison: Comparison, answer: str) -> Plot:
    """The ratios with their 95 % interval and the family's; the band is the margin."""
    rows = [
        PlotRow(
            metric.label,
            [] if metric.b_to_a.value is None else [metric.b_to_a.value],
            _ends(metric.b_to_a.low, metric.b_to_a.high),
            _ends(metric.family_interval.low, metric.family_interval.high),
            _tone(metric),
            f"{metric.label}: {_interval(metric)}, {_verdict(metric)}",
        )
        for metric in comparison.metrics.values()
        if metric.scale is Scale.RATIO and metric.family_interval is not None
    ]
    margin = 1 + comparison.margin
    summary = f"Ratios B/A with intervals: {answer}"
    return Plot(rows, scale=document.Scale.RATIO, band=(1 / margin, margin), summary=summary)


def _ends(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def _plot_legend(comparison: Comparison) -> Iterable[Paragraph]:
    intervals = (metric.family_interval for metric in comparison.metrics.values() if metric.scale is Scale.RATIO)
    drawn = next(filter(None, intervals), None)
    if drawn is not None:
        many = comparison.family.size > 1
        beside = f", thin: {drawn.confidence:.1%}, which holds for all at once" if many else ""
        yield Paragraph(f"Thick: 95 % interval{beside}. Band: the margin.", tone=Tone.DIM)


# --- figures in words ------------------------------------------------------------------------------------------------


def _value(value: float | None, scale: Scale) -> str:
    if value is None:
        return numbers.REFUSED
    return f"{value:.1%}" if scale is Scale.POINTS else f"{value:.4g}"


def _interval(metric: Compared) -> str:
    """`1.095 [1.070, 1.120]`; of a success rate, the points between."""
    ratio = metric.b_to_a
    if ratio.value is None:
        return numbers.REFUSED
    if metric.scale is Scale.POINTS:
        points = f"{100 * ratio.value:+.1f} pt"
        return f"{points} {_points(ratio.low, ratio.high)}".rstrip()
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f}"
    decimals = _decimals(ratio)
    value, low, high = (numbers.number(edge, decimals) for edge in (ratio.value, ratio.low, ratio.high))
    return f"{value} [{low}, {high}]"


def _family(metric: Compared) -> str:
    interval = metric.family_interval
    if interval is None or interval.low is None or interval.high is None:
        return ""
    if metric.scale is Scale.POINTS:
        return _points(interval.low, interval.high)
    decimals = _decimals(metric.b_to_a)
    return f"[{numbers.number(interval.low, decimals)}, {numbers.number(interval.high, decimals)}]"


def _points(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def _decimals(figure: Figure) -> int:
    return max(0, min(MOST_DECIMALS, numbers.decimals_for(figure)))


def _verdict(metric: Compared) -> str:
    if metric.verdict is ComparisonVerdict.DIFFERENT:
        return f"different: {metric.direction}"
    return "different, negligible" if metric.verdict is ComparisonVerdict.NEGLIGIBLE else metric.verdict.value


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return "< .0001" if p < 1e-4 else f"{p:.2g}".replace("0.", ".", 1)


# --- doubts ----------------------------------------------------------------------------------------------------------


def _doubts(comparison: Comparison) -> list[str]:
    """Why a metric is inconclusive, what would have been found, and what else must be known of it."""
    texts: dict[str, list[str]] = {}
    for metric in comparison.metrics.values():
        if metric.why:
            texts.setdefault(f"inconclusive: {metric.why}", []).append(metric.label)
        if metric.detectable:
            seen = _detectable(metric.detectable, metric.scale, comparison.margin)
            texts.setdefault(seen, []).append(metric.label)
        for sentence in metric.notes:
            texts.setdefault(sentence, []).append(metric.label)
    return [f"{', '.join(labels)}: {text}" for text, labels in texts.items()]


def _detectable(seen: Seen, scale: Scale, margin: float) -> str:
    """The minimum detectable effect, and the runs needed to see one as large as the margin."""
    if scale is Scale.POINTS:
        return detectable_in_words(seen, f"a difference of {100 * seen.least:.1f} points", f"{100 * margin:.3g} points")
    return detectable_in_words(seen, f"a ratio of {seen.least:.3f}", f"{1 + margin:g}")


def _agreement(comparison: Comparison) -> str:
    """Whether exact tests on ranks or signs, which assume less, say the same as the t test; "" without a test."""
    tests = [(metric, metric.secondary) for metric in comparison.metrics.values() if metric.secondary is not None]
    if not tests:
        return ""
    _, first = tests[0]
    answers = [(metric, test) for metric, test in tests if test.agrees is not None]
    if not answers:
        return f"no exact {first.exact_test} test: with so few runs its p cannot go below {first.least_p:.3g}"
    against = [
        f"{metric.label} (p {_p(test.exact_p)} against {_p(metric.p)})" for metric, test in answers if not test.agrees
    ]
    text = f"the exact {first.exact_test} test agrees on {len(answers) - len(against)} of {len(answers)} metrics"
    return f"{text}; not on {', '.join(against)}" if against else text


# --- fairness --------------------------------------------------------------------------------------------------------


def _fairness(comparison: Comparison) -> Iterable[Bullets | Table]:
    fair = comparison.fairness
    rest: tuple[Words, ...] = (_work(fair), *fair.notes, *comparison.notes)
    yield Bullets((*_facts_in_words(fair), *rest), indent=2, only=TEXT | MARKDOWN)
    columns = (Column("", align=Align.LEFT), Column("A", align=Align.LEFT), Column("B", align=Align.LEFT), Column(""))
    yield Table(columns, [_fact_row(fact.name, fact.a, fact.b, fact.same) for fact in fair.facts], only=PAGE)
    yield Bullets(rest, only=PAGE)


def _fact_row(name: str, a: object, b: object, same: bool | None) -> Row:
    words = {True: "same", False: "different", None: "not known"}[same]
    values = ("–" if value is None else _fact(value) for value in (a, b))
    return Row((name, *values, Cell(words, tone=Tone.WARN if same is False else Tone.DIM)))


def _facts_in_words(fair: Fairness) -> Iterable[str]:
    same = [fact.name for fact in fair.facts if fact.same]
    unknown = [fact.name for fact in fair.facts if fact.same is None]
    if same:
        yield f"same: {', '.join(same)}"
    for fact in fair.facts:
        if fact.same is False:
            yield f"different: {fact.name}: {_fact(fact.a)} | {_fact(fact.b)}"
    if unknown:
        yield f"not known on both sides: {', '.join(unknown)}"


def _work(fair: Fairness) -> str:
    """How much of the work was the same."""
    prompts, lengths = fair.prompts, fair.output_tokens
    text = f"request bodies: {prompts.shared} the same, of {prompts.a} and {prompts.b}"
    if lengths.a is None or lengths.b is None:
        return text
    return f"{text}; output tokens a request: {lengths.a:.4g} and {lengths.b:.4g}"


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return " + ".join(map(_fact, value)) or "none"
    return "none" if value is None else str(value)


# --- the answer ------------------------------------------------------------------------------------------------------


def _answer(comparison: Comparison) -> str:
    """One sentence with every verdict in it."""
    verdicts: dict[str, list[str]] = {}
    for metric in comparison.metrics.values():
        different = metric.verdict is ComparisonVerdict.DIFFERENT
        words = f"B is {metric.direction}" if different else _verdict(metric)
        verdicts.setdefault(words, []).append(metric.label)
    return "; ".join(f"{words}: {', '.join(labels)}" for words, labels in verdicts.items()) or "nothing to compare"
