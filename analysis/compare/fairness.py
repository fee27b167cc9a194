"""What two sides of a comparison had in common, and what not: METHODOLOGY 7.8.

A ratio says that two directories differ, never why. So everything known that could be the reason is set side by side:
software, model, options, load, prompts, tokens. One fact is a gate: where the mean answers differ in length by more
than 2 %, whole requests are not the same work any more, and only figures per token may be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.estimate import significant
from analysis.records.frame import Frame
from analysis.records.measured import Measured
from analysis.records.requests import ABSENT

__all__ = ["LENGTHS_DIFFER", "Work", "fairness", "work_of"]

LENGTHS_DIFFER = 0.02
QUANTISED = re.compile(
    r"(?<![a-z0-9])(i?q[1-8](?:_[a-z0-9]+)*|awq|gptq|[48]bit|int[48]|fp(?:4|8|16|32)|mxfp4|bf16|f16|f32)(?![a-z0-9])",
    re.IGNORECASE,
)

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What was asked and answered on one side."""

    prompts: frozenset[str]  # hashes of the request bodies
    input_tokens: float | None  # mean of the answered, measured requests that tell
    output_tokens: float | None
    counted: bool  # false: events were counted in place of tokens for some requests


def work_of(m: Measured, frame: Frame) -> Work:
    """Return what the requests of `m` were. frame: the records they were read from."""
    prompts: set[str] = set()
    for batch in frame.only(m.runs).batches(("prompt_sha",)):
        prompts.update(sha for sha in batch.column("prompt_sha").to_pylist() if sha)
    output = m.count_tokens()[m.answered]
    counted = bool((output != ABSENT).all())
    output = np.where(output == ABSENT, m.tokens.events[m.answered], output)
    inputs = m.requests.input_tokens[m.answered]
    return Work(frozenset(prompts), _mean(inputs[inputs != ABSENT]), _mean(output), counted)


def _mean(values: np.ndarray[Any, np.dtype[np.int64]]) -> float | None:
    return float(values.mean()) if len(values) else None


def fairness(a: Manifest, b: Manifest, work_a: Work, work_b: Work) -> dict[str, Any]:
    """Return {"facts", "prompts", "output_tokens", "per_token_only", "notes"}.

    facts: {"name", "a", "b", "same"} each; same is None where one side does not tell.
    """
    facts_a, facts_b = _facts(a), _facts(b)
    facts = [
        {"name": name, "a": facts_a[name], "b": facts_b[name], "same": _same(facts_a[name], facts_b[name])}
        for name in facts_a
    ]
    lengths = _lengths(work_a, work_b)
    notes = []
    if lengths["differ"]:
        notes.append(
            f"mean output tokens differ by {abs(lengths['difference']):.1%} ({work_a.output_tokens:.4g} and "
            f"{work_b.output_tokens:.4g}): only figures per token are compared"
        )
    if lengths["difference"] is None:
        notes.append("output tokens are not known on both sides: equal work cannot be checked")
    elif not (work_a.counted and work_b.counted):
        notes.append("a server did not count all tokens: events were counted in place of them")
    if one_after_another(a, b):
        notes.append("not interleaved: one side was measured wholly before the other, so drift counts as a difference")
    shared = len(work_a.prompts & work_b.prompts)
    return {
        "facts": facts,
        "prompts": {"a": len(work_a.prompts), "b": len(work_b.prompts), "shared": shared},
        "input_tokens": {"a": significant(work_a.input_tokens), "b": significant(work_b.input_tokens)},
        "output_tokens": lengths,
        "per_token_only": lengths["differ"],
        "notes": notes,
    }


def _lengths(a: Work, b: Work) -> dict[str, Any]:
    difference = None
    if a.output_tokens and b.output_tokens:
        difference = b.output_tokens / a.output_tokens - 1
    return {
        "a": significant(a.output_tokens),
        "b": significant(b.output_tokens),
        "difference": significant(difference),
        "differ": difference is not None and abs(difference) > LENGTHS_DIFFER,
        "counted": a.counted and b.counted,
    }


def one_after_another(a: Manifest, b: Manifest) -> bool:
    """Return whether all runs of one side began before the first of the other; false where nobody can tell."""
    starts_a, starts_b = _starts(a), _starts(b)
    if not starts_a or not starts_b:
        return False
    return max(starts_a) < min(starts_b) or max(starts_b) < min(starts_a)


def _starts(manifest: Manifest) -> list[str]:
    """ISO times of one zone, which order as they stand."""
    return [entry["wall_start"] for entry in manifest.get("runs") or [] if entry.get("wall_start")]


def _same(a: object, b: object) -> bool | None:
    return None if a is None or b is None else a == b


def _facts(manifest: Manifest) -> dict[str, Any]:
    profile = _mapping(manifest.get("profile"))
    host = _mapping(manifest.get("host"))
    instrument = _mapping(manifest.get("instrument"))
    design = _mapping(manifest.get("design"))
    targets = [target for target in manifest.get("targets") or [] if isinstance(target, Mapping)]
    specs = profile.get("target") or []
    specs = [spec for spec in (specs if isinstance(specs, list) else [specs]) if isinstance(spec, Mapping)]
    work = _mapping(profile.get("work"))
    return {
        "loadgen": manifest.get("loadgen"),
        "client": {key: host.get(key) for key in ("system", "kernel", "machine", "cores", "python")} if host else None,
        "tier": instrument.get("tier"),
        "server": _each(targets, "version"),
        "API": _each(targets, "api"),
        "model": _each(targets, "model"),
        "quantisation": _quantisation(targets),
        "options": [_mapping(spec.get("options")) for spec in specs] or None,
        "load": _set(profile.get("load")),
        "work": _set(work),
        "seed": manifest.get("seed"),
        "objectives": profile.get("objectives"),
        "order": design.get("order"),
        "isolation": design.get("isolation"),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _each(targets: list[Mapping[str, Any]], key: str) -> list[Any] | None:
    found = [target.get(key) for target in targets]
    return found if any(value is not None for value in found) else None


def _quantisation(targets: list[Mapping[str, Any]]) -> list[str | None] | None:
    """Return what the server tells, else what the model's name says, as names of quantised models usually do."""
    found = []
    for target in targets:
        told = target.get("quantization") or target.get("quantisation")
        named = QUANTISED.search(str(target.get("model") or ""))
        found.append(str(told) if told else named.group(1).lower() if named else None)
    return found if any(found) else None


def _set(settings: object) -> dict[str, Any] | None:
    """Return only the settings that say something: those left out are None all the way down."""
    if not isinstance(settings, Mapping) or not settings:
        return None
    kept = {}
    for key, value in settings.items():
        inner = _set(value) if isinstance(value, Mapping) else value
        if inner not in (None, [], {}):
            kept[key] = inner
    return kept
