"""The waist for directories of many campaigns: `matrix.json` and `runtimes.json` as frozen values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from loadgen.manifest import ProfileFacts

__all__ = [
    "MATRIX",
    "RUNTIMES",
    "SWEEP",
    "AgentOptions",
    "CellFacts",
    "ConfigurationFacts",
    "MatrixManifest",
    "RuntimesManifest",
    "SuiteManifest",
    "TestFacts",
    "VariantFacts",
    "matrix_path",
]

MATRIX = "matrix.json"  # of configurations of agents
SWEEP = "sweep.json"  # the name of such a manifest while its schema was loadgen.sweep/1, a number not used again
RUNTIMES = "runtimes.json"


class TestFacts(Struct, frozen=True, kw_only=True):
    """How one campaign of many ended."""

    __test__ = False  # no test of pytest's

    id: int | str
    success: bool = False
    error: str | None = None
    missing_runs: int | None = None  # None: it was never begun
    wall_start: str | None = None
    wall_end: str | None = None


class SuiteManifest(Struct, frozen=True, kw_only=True):
    """What manifests of many campaigns have in common. Fields of type UnsetType may be missing in a file."""

    schema: str = ""
    loadgen: str | None = None  # its version
    wall_start: str | None = None
    profile: ProfileFacts | None = None
    withheld: tuple[str, ...] = ()
    seed: int = 0
    order: str = "randomised"  # of the campaigns within a block
    blocks: int = 0
    resumed: tuple[str, ...] | UnsetType = UNSET  # when
    duration_s: float | UnsetType = UNSET  # this and what follows: written when it ends
    wall_end: str | UnsetType = UNSET
    finished: bool | UnsetType = UNSET
    tests: tuple[TestFacts, ...] | UnsetType = UNSET
    sha256: dict[str, str] | UnsetType = UNSET
    manifest_sha256: str | UnsetType = UNSET

    @classmethod
    def from_json(cls, plain: object) -> Self:
        """The manifest that plain JSON types hold. Raises msgspec.ValidationError where a value has another type."""
        manifest = msgspec.convert(plain, cls)
        profile = plain.get("profile") if isinstance(plain, Mapping) else None
        return manifest if profile is None else manifest.with_(profile=ProfileFacts.from_json(profile))

    def to_json(self) -> dict[str, Any]:
        """The plain JSON types of the file."""
        profile = None if self.profile is None else json.loads(self.profile.text)
        return {**msgspec.to_builtins(self), "profile": profile}

    def with_(self, **changes: object) -> Self:
        """The same manifest with other values in some fields."""
        return msgspec.structs.replace(self, **changes)

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories of its campaigns, relative to its own."""
        raise NotImplementedError


class AgentOptions(Struct, frozen=True, kw_only=True):
    """An agent of a configuration and its options, secrets redacted."""

    name: str
    options: dict[str, Any] = {}


class ConfigurationFacts(Struct, frozen=True, kw_only=True):
    """One configuration of agents and the directory of its campaign."""

    id: int | str
    phase: int | None = None
    directory: str
    scenario: str | None = None
    permits: int | None = None
    think_ms: float = 0.0
    agents: tuple[AgentOptions, ...] = ()


class MatrixManifest(SuiteManifest, frozen=True, kw_only=True):
    """`matrix.json`: configurations of agents, a campaign each. An older `sweep.json` is read as one."""

    schema: str = "loadgen.matrix/1"
    planned: tuple[tuple[int, int | str], ...] = ()  # (block, id of a configuration), in order of execution
    configurations: tuple[ConfigurationFacts, ...] = ()

    @property
    def directories(self) -> tuple[str, ...]:
        """See `SuiteManifest.directories`."""
        return tuple(configuration.directory for configuration in self.configurations)


class VariantFacts(Struct, frozen=True, kw_only=True):
    """One of the client's own runtimes."""

    name: str
    tier: str = "kernel"
    loop: str = "auto"
    read_bytes: int | None = None
    permits: int | None = None


class CellFacts(Struct, frozen=True, kw_only=True):
    """A variant with a configuration, and the directory of its campaign."""

    variant: str
    configuration: str | None = None
    directory: str
    scenario: str | None = None


class RuntimesManifest(SuiteManifest, frozen=True, kw_only=True):
    """`runtimes.json`: the same agents measured by several of the client's own runtimes, a campaign each."""

    schema: str = "loadgen.runtimes/1"
    variants: tuple[VariantFacts, ...] = ()
    control: str | None = None  # the variant whose efficiency is known
    against: str | None = None  # the variant that the others are compared with as well
    left_out: dict[str, str] = {}  # variants that could not be measured, each with the reason
    planned: tuple[tuple[int, str, str | None], ...] = ()  # (block, variant, configuration), in order of execution
    cells: tuple[CellFacts, ...] = ()

    @property
    def directories(self) -> tuple[str, ...]:
        """See `SuiteManifest.directories`."""
        return tuple(cell.directory for cell in self.cells)


def matrix_path(directory: Path) -> Path:
    """The manifest of a matrix in `directory`, an older `sweep.json` where there is no newer one."""
    newer, older = directory / MATRIX, directory / SWEEP
    return older if older.is_file() and not newer.is_file() else newer
