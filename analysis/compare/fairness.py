"""What two sides of a comparison had in common, and what not.

See docs/methodology.md#fairness.

A ratio says that two directories differ, never why. So everything known that could be the reason is set side by side:
software, model, options, load, prompts, tokens. One fact is a gate: where the mean answers differ in length by more
than 2 %, whole requests are not the same work any more, and only figures per token may be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import UNSET, Struct

from analysis.estimate import Note, NoteCode, note, sentences, significant
from analysis.records.frame import Frame
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT
from loadgen.manifest import Manifest, TargetFacts
from loadgen.record import Int64

__all__ = [
    "LENGTHS_DIFFER",
    "Fact",
    "Fairness",
    "Lengths",
    "SharedPrompts",
    "TokenMeans",
    "Work",
    "fairness",
    "work_of",
]

LENGTHS_DIFFER = 0.02
QUANTISED = re.compile(
    r"(?<![a-z0-9])(i?q[1-8](?:_[a-z0-9]+)*|awq|gptq|[48]bit|int[48]|fp(?:4|8|16|32)|mxfp4|bf16|f16|f32)(?![a-z0-9])",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Work:
    """What was asked and answered on one side."""

    prompts: frozenset[str]  # hashes of the request bodies
    input_tokens: float | None  # mean over the answered, measured requests whose count is known
    output_tokens: float | None
    counted: bool  # false: events were counted in place of tokens for some requests


class Fact(Struct, frozen=True, kw_only=True):
    """One thing that could be the reason of a difference, as plain JSON values."""

    name: str
    a: object
    b: object
    same: bool | None  # None: not known on both sides


class SharedPrompts(Struct, frozen=True, kw_only=True):
    """How many different request bodies each side sent, and how many both sent."""

    a: int
    b: int
    shared: int


class TokenMeans(Struct, frozen=True, kw_only=True):
    """Mean tokens per request of each side."""

    a: float | None
    b: float | None


class Lengths(Struct, frozen=True, kw_only=True):
    """Mean output tokens per answer of each side."""

    a: float | None
    b: float | None
    difference: float | None  # of B from A, as a share of A's
    differ: bool  # by more than LENGTHS_DIFFER
    counted: bool  # by the servers, for all answers


class Fairness(Struct, frozen=True, kw_only=True):
    """What the sides had in common."""

    facts: tuple[Fact, ...]
    prompts: SharedPrompts
    input_tokens: TokenMeans
    output_tokens: Lengths
    per_token_only: bool
    notes: tuple[str, ...]
    note_codes: tuple[Note, ...]


def work_of(m: Measured, frame: Frame) -> Work:
    """What the requests of `m` were. frame: the records they were read from."""
    prompts: set[str] = set()
    for batch in frame.only(m.runs).batches(("prompt_sha",)):
        prompts.update(sha for sha in batch.column("prompt_sha").to_pylist() if sha)
    output = m.count_tokens()[m.answered]
    counted = bool((output != ABSENT).all())
    output = np.where(output == ABSENT, m.tokens.events[m.answered], output)
    inputs = m.requests.input_tokens[m.answered]
    return Work(frozenset(prompts), _mean(inputs[inputs != ABSENT]), _mean(output), counted)


def _mean(values: Int64) -> float | None:
    return float(values.mean()) if len(values) else None


def fairness(a: Manifest, b: Manifest, work_a: Work, work_b: Work) -> Fairness:
    """The facts of both sides beside each other. The manifests have the entries of the sides' own runs only."""
    facts_a, facts_b = _facts(a), _facts(b)
    lengths = _lengths(work_a, work_b)
    notes = _notes(lengths)
    if one_after_another(a, b):
        notes.append(note(NoteCode.NOT_INTERLEAVED))
    return Fairness(
        facts=tuple(
            Fact(name=name, a=facts_a[name], b=facts_b[name], same=_same(facts_a[name], facts_b[name]))
            for name in facts_a
        ),
        prompts=SharedPrompts(
            a=len(work_a.prompts), b=len(work_b.prompts), shared=len(work_a.prompts & work_b.prompts)
        ),
        input_tokens=TokenMeans(a=significant(work_a.input_tokens), b=significant(work_b.input_tokens)),
        output_tokens=lengths,
        per_token_only=lengths.differ,
        notes=sentences(notes),
        note_codes=tuple(notes),
    )


def _lengths(a: Work, b: Work) -> Lengths:
    difference = None
    if a.output_tokens and b.output_tokens:
        difference = b.output_tokens / a.output_tokens - 1
    return Lengths(
        a=significant(a.output_tokens),
        b=significant(b.output_tokens),
        difference=significant(difference),
        differ=difference is not None and abs(difference) > LENGTHS_DIFFER,
        counted=a.counted and b.counted,
    )


def _notes(lengths: Lengths) -> list[Note]:
    if lengths.difference is None:
        return [note(NoteCode.LENGTHS_UNKNOWN)]
    notes = []
    if lengths.differ:
        notes.append(note(NoteCode.LENGTHS_DIFFER, share=abs(lengths.difference), a=lengths.a, b=lengths.b))
    if not lengths.counted:
        notes.append(note(NoteCode.EVENTS_FOR_TOKENS))
    return notes


def one_after_another(a: Manifest, b: Manifest) -> bool:
    """Whether all runs of one side began before the first of the other; false where a side has no times."""
    starts_a, starts_b = _starts(a), _starts(b)
    if not starts_a or not starts_b:
        return False
    return max(starts_a) < min(starts_b) or max(starts_b) < min(starts_a)


def _starts(manifest: Manifest) -> list[str]:
    """ISO times of one zone, which order as they stand."""
    return [run.wall_start for run in manifest.runs if run.wall_start]


def _same(a: object, b: object) -> bool | None:
    return None if a is None or b is None else a == b


def _facts(manifest: Manifest) -> dict[str, object]:
    """The facts by name, as plain JSON values; None where the manifest has none."""
    profile, host = manifest.profile, manifest.host
    design = None if manifest.design is UNSET else manifest.design
    client = None
    if host is not None:
        client = {name: getattr(host, name) for name in ("system", "kernel", "machine", "cores", "python")}
    return {
        "loadgen": manifest.loadgen,
        "client": client,
        "tier": manifest.measured_by.tier,
        "server": _each([target.version for target in manifest.targets]),
        "API": _each([target.api for target in manifest.targets]),
        "model": _each([target.model for target in manifest.targets]),
        "quantisation": _quantisation(manifest.targets),
        "options": [target.options for target in profile.target] or None if profile else None,
        "load": _set(msgspec.to_builtins(manifest.load)),
        "work": _set(msgspec.to_builtins(profile.work)) if profile else None,
        "seed": manifest.seed,
        "objectives": profile.objectives if profile else None,
        "order": design.order if design else None,
        "isolation": design.isolation if design else None,
    }


def _each(values: Sequence[str | None]) -> list[str | None] | None:
    return list(values) if any(value is not None for value in values) else None


def _quantisation(targets: Sequence[TargetFacts]) -> list[str | None] | None:
    """The format of each model's weights, as names of quantised models usually have it."""
    names = [QUANTISED.search(target.model or "") for target in targets]
    return _each([None if name is None else name.group(1).lower() for name in names])


def _set(settings: object) -> dict[str, object] | None:
    """The settings that say something; those left out are None all the way down. None if there is none."""
    if not isinstance(settings, Mapping) or not settings:
        return None
    filled = {}
    for key, value in settings.items():
        inner = _set(value) if isinstance(value, Mapping) else value
        if inner not in (None, [], (), {}):
            filled[key] = inner
    return filled
