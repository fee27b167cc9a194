"""The waist, second half: the facts of a campaign. `manifest.json` of a run's directory as frozen values.

All code that makes a manifest fills these, all code that reads one reads their attributes. A field of type UnsetType
may be missing in a file, and is left out of it while it is unset. The profile is kept whole as JSON text, because
resuming needs every key; the parts that are read have types.

Times called *_ns are nanoseconds of the monotonic clock; within a run they count from its start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

__all__ = [
    "ARTIFACTS",
    "CONTROL",
    "JOURNAL",
    "MANIFEST",
    "RECORDS",
    "REPORT",
    "SAMPLES",
    "SCHEMA",
    "SUMMARY",
    "TELEMETRY",
    "AgentFacts",
    "AgentsSpec",
    "ArmFacts",
    "BoardFact",
    "Calibration",
    "CampaignSpecFacts",
    "DesignFacts",
    "HostFacts",
    "InstrumentFacts",
    "Lengths",
    "LimitsFacts",
    "LoadFacts",
    "LookFacts",
    "Manifest",
    "Planned",
    "ProfileFacts",
    "RunFacts",
    "SourceFact",
    "StageFacts",
    "TargetFacts",
    "TargetSpecFacts",
    "TelemetryFacts",
    "TelemetrySpec",
    "WorkFacts",
    "WorkloadFacts",
    "read_manifest",
]

SCHEMA = "loadgen.manifest/1"

MANIFEST = "manifest.json"
RECORDS = "records.parquet"
TELEMETRY = "telemetry.parquet"
SUMMARY = "summary.json"
REPORT = "report.html"
JOURNAL = "journal"  # a folder: records while the campaign runs or after a crash
SAMPLES = "telemetry"  # a folder: samples that are not in telemetry.parquet yet
ARTIFACTS = "artifacts"  # a folder: the files of the multi-agent guide and the answers of agents

CONTROL = "control:"  # before an arm's name: its repetition at the start (block -1) and at the end

Planned = tuple[int, str]  # (block, arm)
BoardFact = bool | int | float | str | list[str] | dict[str, str] | None  # of a GPU
SourceFact = bool | int | float | str | list[dict[str, BoardFact]] | None  # of what was sampled
Lengths = dict[str, int | float | dict[str, int | float] | None]  # {kind of distribution: its parameters}, tokens


class StageFacts(Struct, frozen=True, kw_only=True):
    """One stage of a load, as the profile states it."""

    duration_s: float | None = None
    requests: int | None = None
    rate_per_s: float | None = None
    concurrency: int | None = None
    ramp_to: float | None = None


class LoadFacts(Struct, frozen=True, kw_only=True):
    """The arrivals of requests, as the profile states them."""

    arrivals: str | None = None
    concurrency: int | None = None
    rate_per_s: float | None = None
    burstiness: float | UnsetType | None = UNSET  # of gamma gaps
    mmpp: dict[str, float] | UnsetType | None = UNSET
    requests: int | None = None
    duration_s: float | None = None
    warmup_requests: int = 0
    warmup_s: float = 0.0
    max_in_flight: int | None = None
    stages: tuple[StageFacts, ...] = ()


class WorkFacts(Struct, frozen=True, kw_only=True):
    """The contents of requests, as the profile states them. Distributions are {kind: parameters}."""

    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    cache: str | None = None
    shared_prefix_tokens: int | None = None
    dataset: str | None = None
    dataset_format: str | None = None
    system: str | None = None
    order: str | None = None


class TargetSpecFacts(Struct, frozen=True, kw_only=True):
    """A server as the profile states it; secrets are redacted."""

    url: str = ""
    name: str = ""
    api: str = "auto"
    model: str = "auto"
    path: str | None = None
    options: dict[str, Any] = {}
    headers: dict[str, str] = {}
    tokenizer: str | None = None
    force_length: bool = True
    weight: float = 1.0


class AgentsSpec(Struct, frozen=True, kw_only=True):
    """The agents as the profile states them, as far as analysis reads it."""

    scenario: str | None = None
    workload: str | None = None
    count: int | None = None
    permits: int | None = None
    think_ms: float = 0.0
    rounds: int = 1
    solo: bool = True
    artifacts: bool = False


class CampaignSpecFacts(Struct, frozen=True, kw_only=True):
    """The number and order of runs, as the profile states them."""

    order: str = "randomised"
    cooldown_s: float = 0.0
    isolation: str = "none"
    control: str | None = None
    until: float | None = None
    until_metric: str = "both"


class LimitsFacts(Struct, frozen=True, kw_only=True):
    """The limits after which requests were given up, s."""

    connect_s: float | None = None
    first_token_s: float | None = None
    between_tokens_s: float | None = None
    total_s: float | None = None
    drain_s: float | None = None
    no_progress_s: float | None = None


class TelemetrySpec(Struct, frozen=True, kw_only=True):
    """The sources to sample and their interval, as the profile states them."""

    interval_s: float | None = None
    gpu: str | None = None
    exporters: tuple[str, ...] = ()


class ProfileFacts(Struct, frozen=True, kw_only=True):
    """A resolved profile. `text` is all of it as JSON; the other fields are the parts that are read."""

    target: tuple[TargetSpecFacts, ...] = ()
    load: LoadFacts | None = None
    work: WorkFacts | None = None
    runs: int | None = None
    agents: AgentsSpec | None = None
    campaign: CampaignSpecFacts | None = None
    seed: int | None = None
    workers: int = 1
    objectives: dict[str, float] = {}
    limits: LimitsFacts | None = None
    telemetry: TelemetrySpec | None = None
    tier: str = "auto"
    loop: str = "auto"
    proxy: str | None = None
    text: str = "{}"

    @classmethod
    def from_json(cls, plain: object) -> ProfileFacts:
        """The facts of a resolved profile in plain JSON types. Raises msgspec.ValidationError."""
        facts = msgspec.convert(plain, cls)
        return msgspec.structs.replace(facts, text=json.dumps(plain, ensure_ascii=False))


class TargetFacts(Struct, frozen=True, kw_only=True):
    """A server as it was found: its kind, and the dialect and model used."""

    name: str
    url: str
    version: str | None = None
    kind: str | None = None
    api: str | None = None
    path: str | None = None
    model: str | None = None
    force_length: bool = True


class WorkloadFacts(Struct, frozen=True, kw_only=True):
    """The contents of requests and the source of their lengths. Which fields are set depends on `source`."""

    source: str | UnsetType = UNSET  # synthetic, agents or the file of a dataset
    format: str | UnsetType = UNSET
    entries: int | UnsetType = UNSET
    skipped: int | UnsetType = UNSET
    method: str | UnsetType = UNSET  # exact-tokenizer, server-tokenize, ratio or text
    tokens_per_word: float | UnsetType | None = UNSET
    words: int | UnsetType = UNSET
    order: str | UnsetType = UNSET
    cache: str | UnsetType = UNSET
    unique_prefix_words: int | UnsetType = UNSET
    unique_prefix_at: str | UnsetType | None = UNSET
    shared_prefix_tokens: int | UnsetType | None = UNSET
    prompt_tokens: Lengths | UnsetType | None = UNSET
    least_prompt_tokens: int | UnsetType | None = UNSET
    output_tokens: Lengths | int | str | UnsetType | None = UNSET  # "dataset": as long as the file's answers
    system: bool | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    run: int | UnsetType = UNSET
    workload: str | UnsetType = UNSET  # this and the rest: of agents
    stages: tuple[str, ...] | UnsetType = UNSET
    rounds: int | UnsetType = UNSET
    calls_each: int | UnsetType = UNSET
    data: str | UnsetType = UNSET
    files: int | UnsetType = UNSET
    ratio_from: str | UnsetType = UNSET  # where tokens_per_word comes from, where `method` is ratio


class HostFacts(Struct, frozen=True, kw_only=True):
    """The client's machine, without a name or address."""

    system: str | None = None
    kernel: str | None = None
    machine: str | None = None
    cores: int | None = None
    memory_gib: float | None = None
    python: str | None = None


class Calibration(Struct, frozen=True, kw_only=True):
    """Stamp errors against the emulator's truth on this host, µs, and the load they were measured at."""

    tier: str | None = None
    streams: int | None = None
    tokens_per_s: float | None = None
    events: int | None = None
    ttft_bias_us: float | None = None
    ttft_halfwidth_us: float | None = None
    gap_bias_us: float | None = None
    gap_halfwidth_us: float | None = None
    stamp_p99_us: float | None = None
    censored_share: float | None = None
    highest_tokens_per_s: float | None = None  # held with a censored share under 1 %; None if not searched for
    wall: str | None = None


class InstrumentFacts(Struct, frozen=True, kw_only=True):
    """The client's tier and settings, and its own load: the worst over runs and workers."""

    tier: str | None = None
    tier_reason: str | None = None
    workers: int | None = None
    clock_source: str | None = None
    calibration: Calibration | None = None
    loop_lag_ms: dict[str, float] | None = None  # p50, p99, max
    cpu_share: float | None = None  # of one core
    clock_jump_us: float | None = None
    unstamped_reads: int = 0


class RunFacts(Struct, frozen=True, kw_only=True):
    """One run that was made, perhaps not to its end."""

    run: int
    block: int | None = None
    arm: str | None = None
    start_ns: int | None = None  # of the monotonic clock: the zero of the run's records
    wall_start: str | None = None
    measured_from_ns: int | None = None
    measured_to_ns: int | None = None
    offered: int | None = None
    open_loop: bool | None = None
    concurrency_asked: int | None = None
    concurrency_reached: int | None = None
    left_out: int | UnsetType = UNSET  # calls of agents not made because one before them failed
    interrupted: bool = False
    no_progress: bool = False

    @property
    def whole(self) -> bool:
        """Whether the run was made to its end."""
        return not self.interrupted and not self.no_progress


class ArmFacts(Struct, frozen=True):
    """An arm and the agents in it."""

    name: str
    agents: tuple[str, ...] = ()


class DesignFacts(Struct, frozen=True, kw_only=True):
    """The design of a campaign: which arm runs when."""

    arms: tuple[ArmFacts, ...] = ()
    primary: str | None = None  # the arm that the summary's figures are about
    blocks: int = 0
    order: str = "randomised"
    order_seed: int = 0
    planned: tuple[Planned, ...] = ()
    isolation: str = "none"
    cooldown_s: float = 0.0
    control: str | None = None
    until: float | None = None  # relative half-width at which the campaign stops


class LookFacts(Struct, frozen=True, kw_only=True):
    """One check of a campaign's precision: the relative half-width of each metric after a number of runs."""

    runs: int
    half_width: dict[str, float | None] = {}
    reached: bool = False


class TelemetryFacts(Struct, frozen=True, kw_only=True):
    """The sources sampled beside the runs, and those that were not and why. A source's facts depend on its kind."""

    interval_s: float | None = None
    sources: tuple[dict[str, SourceFact], ...] = ()
    absent: tuple[dict[str, str], ...] = ()  # source and reason
    notes: tuple[str, ...] = ()


class AgentFacts(Struct, frozen=True, kw_only=True):
    """One agent: its server, model and options."""

    name: str
    endpoint: str | None = None
    role: str | None = None
    options: dict[str, Any] = {}
    asked_options: dict[str, Any] = {}
    workload: str | None = None
    calls: tuple[str, ...] = ()
    think_ms: float = 0.0
    model: str | None = None
    files: tuple[str, ...] | None = None


class Manifest(Struct, frozen=True, kw_only=True):
    """The facts of a campaign, in one directory of runs."""

    schema: str = SCHEMA
    loadgen: str | None = None  # its version
    wall_start: str | None = None
    profile: ProfileFacts | None = None
    withheld: tuple[str, ...] = ()  # options to give again when resuming, because they may hold secrets
    seed: int | None = None
    targets: tuple[TargetFacts, ...] = ()
    workload: WorkloadFacts | None = None
    host: HostFacts | None = None
    instrument: InstrumentFacts | None = None
    runs: tuple[RunFacts, ...] = ()
    scenario: str | UnsetType = UNSET  # this and the next three: of agents
    permits: int | UnsetType = UNSET
    agents: tuple[AgentFacts, ...] | UnsetType = UNSET
    agents_warmup_requests: int | UnsetType = UNSET
    design: DesignFacts | UnsetType = UNSET
    looks: tuple[LookFacts, ...] | UnsetType = UNSET
    cleared: dict[str, str] | UnsetType = UNSET  # endpoint: the way its cache or model was cleared before runs
    telemetry: TelemetryFacts | UnsetType = UNSET
    resumed: tuple[str, ...] | UnsetType = UNSET  # when
    finished: bool | UnsetType = UNSET  # this and what follows: written when the campaign ends
    halted: str | UnsetType | None = UNSET  # why it ended early
    wall_end: str | UnsetType = UNSET
    sha256: dict[str, str] | UnsetType = UNSET  # of every other file
    manifest_sha256: str | UnsetType = UNSET  # of this file with this entry blank

    @classmethod
    def from_json(cls, plain: object) -> Self:
        """The manifest that plain JSON types hold. Raises msgspec.ValidationError where a value has another type."""
        manifest = msgspec.convert(plain, cls)
        profile = plain.get("profile") if isinstance(plain, Mapping) else None
        return manifest if profile is None else manifest.with_(profile=ProfileFacts.from_json(profile))

    def to_json(self) -> dict[str, Any]:
        """The plain JSON types of manifest.json, in the order of the fields."""
        profile = None if self.profile is None else json.loads(self.profile.text)
        return {**msgspec.to_builtins(self), "profile": profile}

    def with_(self, **changes: object) -> Self:
        """The same manifest with other values in some fields."""
        return msgspec.structs.replace(self, **changes)

    @property
    def crew(self) -> tuple[AgentFacts, ...]:
        """The agents; empty where the campaign has none."""
        return () if self.agents is UNSET else self.agents

    @property
    def planned_design(self) -> DesignFacts:
        """The design; an empty one where there is none."""
        return DesignFacts() if self.design is UNSET else self.design

    @property
    def measured_by(self) -> InstrumentFacts:
        """The instrument's facts; all unknown where there are none."""
        return self.instrument or InstrumentFacts()

    @property
    def load(self) -> LoadFacts | None:
        """The load of the profile, None where it is not known."""
        return None if self.profile is None else self.profile.load

    @property
    def objectives(self) -> dict[str, float]:
        """The objectives that the profile states."""
        return {} if self.profile is None else self.profile.objectives

    def run(self, number: int) -> RunFacts | None:
        """The facts of one run; None where it was not made."""
        return next((run for run in self.runs if run.run == number), None)


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file `path`.

    Raises OSError, or ValueError (json.JSONDecodeError, msgspec.ValidationError) for a file that holds none.
    """
    return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
