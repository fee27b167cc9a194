"""Did agents slow each other down, how much, when, and by what?

See docs/methodology.md#contention.

The verdict is over runs: the stretch of service TTFT and TPOT, concurrent against measured solo, with a one-sided
lower bound above 1.05. Flags on single calls show where it happened; they are held to a false discovery rate of 5 % and
compared with the flags that the solo runs themselves would get, because a server with a slow tail has some when alone.

The rules of earlier tools stand beside this, each under its own name: they are absolute limits or a measure of
balance, and do not detect moderate contention.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import special

from analysis.agents.overlap import Busy, inside_and_touching
from analysis.estimate import Bool, Estimate, Float64, Note, NoteCode, note, refused
from analysis.records.calls import Calls
from analysis.records.requests import ABSENT
from analysis.stats import planning, ratio
from analysis.stats.distributions import scipy_stats
from analysis.stats.equivalence import benjamini_hochberg
from analysis.stats.intervals import CONFIDENCE, ENOUGH_RUNS, FEW_RUNS, LEAST_RUNS, no_interval
from analysis.stats.outliers import MAD_TO_SD
from loadgen.record import Int64

__all__ = [
    "TAIL_P",
    "THRESHOLD",
    "Baseline",
    "ContentionVerdict",
    "Fit",
    "Flags",
    "Rules",
    "Stretch",
    "baseline_of",
    "detectable",
    "flag",
    "flag_calls",
    "legacy_rules",
    "natural_tail_p",
    "overlapping",
    "stretch_over_runs",
    "verdict_of",
]

THRESHOLD = 1.05
BOUNDS = 0.90  # two one-sided bounds of 95 %
FALSE_DISCOVERIES = 0.05
TAIL_P = 0.05
LEAST_BASELINE = 10  # solo calls of an agent: with fewer the spread of the spread drowns everything
WANTED_CALLS, WANTED_RUNS = 30, 5  # docs/methodology.md#the-verdict, of the solo baseline
LENGTHS_DIFFER = 1.1  # longest over shortest prompt, from which TTFT is fitted to the prompt's length
FIT_LEAST = 10
PAIRS_FROM = 500  # calls: Theil and Sen take every pair


class ContentionVerdict(StrEnum):
    """Whether agents slowed each other down."""

    CONTENTION = "contention"
    NONE = "none"
    INCONCLUSIVE = "inconclusive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stretch:
    """The factor by which a duration is longer, concurrent against solo: a ratio over runs, one-sided 95 % bounds."""

    estimate: Estimate  # two-sided
    lower: float | None = None
    upper: float | None = None
    not_compared: tuple[str, ...] = ()  # agents that were never measured alone
    log: ratio.Difference | None = None  # of the logarithms
    runs: tuple[int, int | None] = (0, None)  # pairs, or the concurrent and the solo runs


@dataclass(frozen=True, slots=True)
class Fit:
    """The time of a call when alone: fixed_ns + per_token_ns * prompt tokens, inside the solo calls' lengths."""

    fixed_ns: float
    per_token_ns: float = 0.0
    shortest: float = 0.0
    longest: float = 0.0

    def log(self, prompt_tokens: Float64) -> Float64:
        """The logarithm of the expected ns, shape as `prompt_tokens`; NaN lengths count as the shortest."""
        if self.per_token_ns == 0:
            return np.full(len(prompt_tokens), np.log(self.fixed_ns))
        known = np.where(np.isnan(prompt_tokens), self.shortest, prompt_tokens)
        return np.log(self.fixed_ns + self.per_token_ns * np.clip(known, self.shortest, self.longest))


@dataclass(frozen=True, slots=True)
class Baseline:
    """Solo calls as a yardstick: residuals log(ns) - fit have this centre and spread."""

    n: int
    fit: Fit
    centre: float
    scale: float  # 1.4826 MAD

    def residual(self, values_ns: Float64, prompt_tokens: Float64) -> Float64:
        return np.log(values_ns) - self.fit.log(prompt_tokens) - self.centre

    def expected_ns(self, prompt_tokens: Float64) -> Float64:
        return np.exp(self.fit.log(prompt_tokens) + self.centre)

    def p(self, values_ns: Float64, prompt_tokens: Float64) -> Float64:
        """The upper p of each call being like the solo ones: t with n/2 degrees, because MAD is a rough estimate."""
        z = self.residual(values_ns, prompt_tokens) / self.scale
        return np.asarray(special.stdtr(self.n / 2, -z), np.float64)


@dataclass(frozen=True, slots=True)
class Flags:
    """The calls slower than solo ones. Shape (n,), an element per call; NaN, False where it was not judged."""

    looked_at: Bool
    flagged: Bool
    p: Float64
    stretch: Float64  # against what the fit expects
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of earlier tools (docs/agents.md#rules-of-earlier-tools)."""

    speedup_below: tuple[float, ...] = (1.5,)
    delta_ttft_above_s: tuple[float, ...] = (3.0, 10.0)
    ttft_above_s: tuple[float, ...] = (3.0, 10.0)


# --- over runs -------------------------------------------------------------------------------------------------------


def stretch_over_runs(calls: Calls, values_ns: Float64, chosen: Bool, confidence: float = CONFIDENCE) -> Stretch:
    """The stretch of `values_ns`, shape (n,): geometric means of runs, concurrent against solo.

    chosen: which concurrent calls count (those that overlapped another agent's). A call is compared with the solo
    calls of the same agent at the same place, so that work of different kinds never meets; agents count alike.
    """
    usable = (values_ns > 0) & (~calls.concurrent | chosen)  # NaN > 0 is False
    key = calls.agent * (int(calls.turn.max(initial=0)) + 1) + calls.turn
    alone = usable & ~calls.concurrent
    together = usable & calls.concurrent & np.isin(key, key[alone])
    refusal = _refusal(calls, values_ns, alone, together)
    if refusal is not None:
        return Stretch(refused(refusal))
    logs = np.log(np.where(usable, values_ns, 1.0))
    sums = np.bincount(key[alone], weights=logs[alone], minlength=int(key.max()) + 1)
    counts = np.bincount(key[alone], minlength=len(sums))
    residual = logs - (sums / np.maximum(counts, 1))[key]
    per_run = {int(run): together & (calls.run == run) for run in np.unique(calls.run[together])}
    slower = {run: _mean_of_agents(residual, here, calls.agent) for run, here in per_run.items()}
    blocks = {run: int(calls.block[here][0]) for run, here in per_run.items()}
    solo = {}
    for block in np.unique(calls.block[alone]).tolist():
        partner = together & (calls.block == block)
        # A block whose concurrent run is missing still counts as a solo measurement.
        baseline = alone & (calls.block == block) & np.isin(key, key[partner if partner.any() else together])
        if baseline.any():
            solo[block] = _mean_of_agents(residual, baseline, calls.agent)
    measured_alone = set(calls.agent[~calls.concurrent & calls.ok].tolist())
    missing = tuple(
        calls.agents[agent] for agent in np.unique(calls.agent[calls.concurrent]) if agent not in measured_alone
    )
    if all(blocks[run] in solo and blocks[run] != ABSENT for run in slower):
        top, bottom = list(slower.values()), [solo[blocks[run]] for run in slower]
        return replace(_stretch(np.array(top), np.array(bottom), confidence, blocked=True), not_compared=missing)
    unblocked = _stretch(np.array(list(slower.values())), np.array(list(solo.values())), confidence, blocked=False)
    return replace(unblocked, not_compared=missing)


def _refusal(calls: Calls, values_ns: Float64, alone: Bool, together: Bool) -> Note | None:
    """Why there is no stretch, None where there is one. alone, together: shape (n,), which calls would be compared."""
    if not alone.any():
        answered = (~calls.concurrent & calls.ok).any()
        return note(NoteCode.NOT_STAMPED_ALONE if answered else NoteCode.NEVER_ALONE)
    if not (calls.concurrent & (values_ns > 0)).any():
        answered = (calls.concurrent & calls.ok).any()
        return note(NoteCode.NOT_STAMPED_TOGETHER if answered else NoteCode.NEVER_TOGETHER)
    return None if together.any() else note(NoteCode.NO_OVERLAP)


def _mean_of_agents(residual: Float64, chosen: Bool, agent: Int64) -> float:
    return float(np.mean([residual[chosen & (agent == code)].mean() for code in np.unique(agent[chosen])]))


def _stretch(top: Float64, bottom: Float64, confidence: float, *, blocked: bool) -> Stretch:
    n = min(len(top), len(bottom))
    if n < LEAST_RUNS:
        value = float(np.exp(top.mean() - bottom.mean())) if n else None
        return Stretch(Estimate(value, n=n, notes=(no_interval(n),)))
    compare = ratio.log_paired if blocked else ratio.log_welch
    compared = compare(np.exp(top), np.exp(bottom), confidence)
    one_sided = compared.at(BOUNDS)
    assert one_sided is not None  # both methods work on logarithms
    method = () if blocked else (note(NoteCode.METHOD, method=compared.method),)
    notes = (*((FEW_RUNS,) if n < ENOUGH_RUNS else ()), *method)
    estimate = Estimate(compared.value, compared.low, compared.high, compared.confidence, n, notes)
    runs = (n, None) if blocked else (len(top), len(bottom))
    return Stretch(estimate, *one_sided, log=compared.log, runs=runs)


def detectable(stretch: Stretch, threshold: float = THRESHOLD) -> planning.Detectable | None:
    """The stretch beyond `threshold` that these runs can detect; None unless they left it undecided.

    As many runs as find a stretch of threshold squared are as likely to rule the threshold out where there is none.
    """
    lower, upper = stretch.lower, stretch.upper
    undecided = lower is not None and upper is not None and lower <= threshold <= upper
    if not undecided or stretch.log is None:
        return None
    return planning.detectable(stretch.log, *stretch.runs, math.log(threshold), size=1 - BOUNDS)


def verdict_of(
    stretches: Mapping[str, Stretch], threshold: float = THRESHOLD
) -> tuple[ContentionVerdict, tuple[Note, ...]]:
    """The verdict and its reasons. stretches: by the printed name of what was stretched, such as TPOT."""
    verdict, decided = ContentionVerdict.NONE, 0
    reasons: list[Note] = []
    for name, stretch in stretches.items():
        estimate = stretch.estimate
        if estimate.value is None:
            reasons.append(note(NoteCode.STRETCH_REFUSED, what=name, why=estimate.sentences[0]))
            continue
        decided += 1
        answer, reason = _answer(name, estimate.value, stretch, threshold)
        reasons.append(reason)
        if verdict is not ContentionVerdict.CONTENTION and answer is not ContentionVerdict.NONE:
            verdict = answer
        if stretch.not_compared:
            reasons.append(note(NoteCode.NOT_COMPARED, what=name, agents=", ".join(stretch.not_compared)))
    if decided:
        return verdict, tuple(reasons)
    refusals: list[Note] = []
    for stretch in stretches.values():
        refusal = stretch.estimate.figure().note_codes[0]
        refusals += [refusal] if refusal not in refusals else []
    apart = bool(refusals) and all(refusal.code is NoteCode.NO_OVERLAP for refusal in refusals)
    return ContentionVerdict.NONE if apart else ContentionVerdict.UNKNOWN, tuple(refusals)


def _answer(name: str, value: float, stretch: Stretch, threshold: float) -> tuple[ContentionVerdict, Note]:
    """The verdict on one stretch, and its reason. Findings on some agents do not rule contention out for others."""
    lower, upper = stretch.lower, stretch.upper
    if lower is None or upper is None:
        why = stretch.estimate.sentences[0]
        reason = note(NoteCode.STRETCH_WITHOUT_BOUNDS, what=name, stretch=value, why=why)
        return ContentionVerdict.INCONCLUSIVE, reason
    if lower > threshold:
        return ContentionVerdict.CONTENTION, note(NoteCode.STRETCH_ABOVE, what=name, stretch=value, lower=lower)
    if upper >= threshold:
        bounds = {"lower": lower, "upper": upper, "threshold": threshold}
        return ContentionVerdict.INCONCLUSIVE, note(NoteCode.STRETCH_UNDECIDED, what=name, **bounds)
    all_compared = ContentionVerdict.INCONCLUSIVE if stretch.not_compared else ContentionVerdict.NONE
    return all_compared, note(NoteCode.STRETCH_BELOW, what=name, upper=upper)


# --- single calls ----------------------------------------------------------------------------------------------------


def overlapping(calls: Calls, busy: Busy, begin_ns: Int64, end_ns: Int64) -> Bool:
    """Which concurrent calls had another agent's request out during [begin, end], shape (n,) each."""
    overlapped = np.zeros(len(calls), np.bool_)
    timed = calls.concurrent & (begin_ns != ABSENT) & (end_ns != ABSENT)
    for (run, agent), intervals in busy.requests.items():
        here = timed & (calls.run == run) & (calls.agent == agent)
        overlapped[here] = inside_and_touching(begin_ns[here], end_ns[here], intervals)[1]
    return overlapped


def baseline_of(values_ns: Float64, prompt_tokens: Float64 | None = None) -> Baseline | None:
    """The yardstick made of solo calls, or None if there are too few, or none that differ.

    prompt_tokens: shape (n,), NaN where unknown; None: the values do not depend on them.
    """
    usable = values_ns > 0
    values = values_ns[usable]
    if len(values) < LEAST_BASELINE:
        return None
    prompts = None if prompt_tokens is None else prompt_tokens[usable]
    fit = _fit(values, prompts)
    residual = np.log(values) - fit.log(np.zeros(len(values)) if prompts is None else prompts)
    centre = float(np.median(residual))
    scale = MAD_TO_SD * float(np.median(np.abs(residual - centre)))
    return Baseline(len(values), fit, centre, scale) if scale > 0 else None


def _fit(values: Float64, prompts: Float64 | None) -> Fit:
    """The fit of time to prompt length: Theil-Sen, which a slow tail does not move, then once more with weights.

    Spread grows with the time itself, so the second round takes both as shares of the first fit.
    """
    usual = float(np.median(values))
    if prompts is None or np.isnan(prompts).any() or len(values) < FIT_LEAST:
        return Fit(usual)
    shortest, longest = float(prompts.min()), float(prompts.max())
    if longest < LENGTHS_DIFFER * shortest or longest == shortest:
        return Fit(usual)
    from scipy import optimize  # 0.2 s to import

    step = -(-len(values) // PAIRS_FROM)
    x, y = prompts[::step], values[::step]
    apart = np.subtract.outer(x, x)
    slope = max(
        0.0, float(np.median(np.subtract.outer(y, y)[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0
    )
    fixed = max(float(np.median(y - slope * x)), 0.1 * float(y.min()))
    mean = float(x.mean())

    def miss(log_parts: Float64) -> Float64:
        # In logarithms both parts stay positive; the second is the time for a prompt of mean length.
        return np.asarray(np.log(np.exp(log_parts[0]) + np.exp(log_parts[1]) * x / mean) - np.log(y), np.float64)

    start = np.log([fixed, max(slope * mean, 1e-3 * usual)])
    spread = max(MAD_TO_SD * float(np.median(np.abs(miss(start)))), 1e-6)
    solution = optimize.least_squares(miss, start, loss="soft_l1", f_scale=spread)
    return Fit(float(np.exp(solution.x[0])), float(np.exp(solution.x[1])) / mean, shortest, longest)


def flag(p: Float64, stretch: Float64, q: float = FALSE_DISCOVERIES) -> Bool:
    """Which calls of one run are flagged: Benjamini and Hochberg at `q`, and at least 5 % slower.

    The second condition is there because next to a very steady server even a thousandth is significant.
    """
    if not len(p):
        return np.empty(0, np.bool_)
    return np.asarray((np.array(benjamini_hochberg(p.tolist())) <= q) & (stretch > THRESHOLD), np.bool_)


def flag_calls(calls: Calls, values_ns: Float64, chosen: Bool, *, by_prompt: bool) -> tuple[Flags, Flags]:
    """The flags of the `chosen` concurrent calls, and those of the solo calls of each run against the others.

    by_prompt: whether the value depends on the prompt's length. The unit of the false discovery rate is the run.
    """
    prompts = np.where(calls.input_tokens == ABSENT, np.nan, calls.input_tokens).astype(np.float64)
    alone = ~calls.concurrent & (values_ns > 0)
    notes: list[Note] = []
    p, stretch = np.full(len(calls), np.nan), np.full(len(calls), np.nan)

    def judge(calls_judged: Bool, against: Bool) -> bool:
        yardstick = baseline_of(values_ns[against], prompts[against] if by_prompt else None)
        if yardstick is None:
            return False
        p[calls_judged] = yardstick.p(values_ns[calls_judged], prompts[calls_judged])
        stretch[calls_judged] = np.exp(yardstick.residual(values_ns[calls_judged], prompts[calls_judged]))
        return True

    for agent, name in enumerate(calls.agents):
        solo = alone & (calls.agent == agent)
        n, runs = int(solo.sum()), np.unique(calls.run[solo])
        if not judge(chosen & calls.concurrent & (calls.agent == agent) & (values_ns > 0), solo):
            notes.append(note(NoteCode.NO_FLAGS, agent=name, calls=n))
            continue
        if n < WANTED_CALLS or len(runs) < WANTED_RUNS:
            wanted = {"calls_wanted": WANTED_CALLS, "runs_wanted": WANTED_RUNS}
            notes.append(note(NoteCode.SMALL_BASELINE, agent=name, calls=n, runs=len(runs), **wanted))
        for run in runs:
            held_out = solo & (calls.run == run)
            judge(held_out, solo & ~held_out)
    flagged = np.zeros(len(calls), np.bool_)
    looked_at = ~np.isnan(p)
    for run in np.unique(calls.run[looked_at]):
        here = looked_at & (calls.run == run)
        flagged[here] = flag(p[here], stretch[here])
    together, by_themselves = (
        Flags(looked_at & kind, flagged & kind, p, stretch, tuple(notes))
        for kind in (calls.concurrent, ~calls.concurrent)
    )
    return together, by_themselves


def natural_tail_p(together: Flags, alone: Flags, run: Bool | None = None) -> float:
    """The p of the flags being the server's own slow tail, which it has when alone as well.

    Fisher's exact test, one-sided, of the share flagged among concurrent calls (of one `run`: which calls are of it)
    against that among solo ones. Below 5 % the flags are called contention: single flags come without it too.
    """
    judged = together.looked_at if run is None else together.looked_at & run
    rows = [
        [int((flagged & those).sum()), int((those & ~flagged).sum())]
        for flagged, those in ((together.flagged, judged), (alone.flagged, alone.looked_at))
    ]
    return float(scipy_stats().fisher_exact(rows, alternative="greater").pvalue)


# --- the rules of earlier tools --------------------------------------------------------------------------------------


def legacy_rules(overlap: Float64, ttft_s: Float64, rules: Rules | None = None) -> dict[str, Bool]:
    """The runs that each rule labels, by the rule's name.

    overlap: shape (runs,), the guide's "speedup", sum of the agents' own walls over the makespan. ttft_s: shape
    (runs, agents), client TTFT from the sending; NaN where unknown.
    """
    rules = rules or Rules()
    known = ~np.isnan(ttft_s)
    most = np.where(known, ttft_s, -np.inf).max(axis=1, initial=-np.inf)
    least = np.where(known, ttft_s, np.inf).min(axis=1, initial=np.inf)
    delta = np.where(known.sum(axis=1) > 1, most - least, -np.inf)
    return (
        {f"speedup<{limit:g}": overlap < limit for limit in rules.speedup_below}
        | {f"delta_ttft>{limit:g}s": delta > limit for limit in rules.delta_ttft_above_s}
        | {f"ttft>{limit:g}s": most > limit for limit in rules.ttft_above_s}
    )
