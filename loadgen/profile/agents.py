"""The agents of a profile: who they are, what they do, and the configurations that a matrix of campaigns is made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from loadgen.profile.base import Count, Model, brief, did_you_mean, fault
from loadgen.profile.loads import Closed

__all__ = ["Agents", "Configuration", "Member"]

ROLES = ("collector", "insight")
SCENARIOS = ("baseline_vs_chimera", "chimera_hetero", "chimera_homo")
CALLS = {"two-stage": 2, "micro": 1, "single": 1, "synthetic": 1}  # of one agent in one round
CHIMERA_DEFAULTS = {"top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1}

Pause = Annotated[float, Field(ge=0)]


class Member(Model):
    """One agent. Its options go into the request as those of a target do, over that target's own."""

    name: str = Field(description="Its name, and that of its arm.")
    target: int | str | None = Field(
        default=None, description="A place in the list of targets, or a name; left out: dealt out in turn."
    )
    role: Literal["collector", "insight"] | None = Field(
        default=None, description="Which prompt of the workload; left out: in turn."
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Sent in its request bodies, over the target's own."
    )

    @field_validator("name")
    @classmethod
    def _can_be_an_arm(cls, name: str) -> str:
        _check_is_file_name(name)
        return name


class _Crew(Model):
    """What may differ between the configurations of a matrix."""

    @field_validator("members", mode="before", check_fields=False)
    @classmethod
    def _is_a_list(cls, data: Any) -> Any:
        return tuple(data) if isinstance(data, list) else data

    @field_validator("members", check_fields=False)
    @classmethod
    def _names_differ(cls, members: tuple[Member, ...] | None) -> tuple[Member, ...] | None:
        seen: set[str] = set()
        for member in members or ():
            if member.name in seen:
                fault(f"has two agents named {member.name}: give each its own name")
            seen.add(member.name)
        return members


class Configuration(_Crew):
    """One test of a matrix: what it sets goes over the section around it."""

    id: int | str = Field(description="Its name, and that of its folder.")
    phase: Count = Field(default=1, description="Configurations can be chosen by phase: `--phases 1,3`.")
    scenario: str | None = Field(default=None, description="As in `agents`.")
    count: Count | None = Field(default=None, description="As in `agents`.")
    members: tuple[Member, ...] | None = Field(default=None, description="As in `agents`.")
    permits: Count | None = Field(default=None, description="As in `agents`.")
    think_ms: Pause | None = Field(default=None, description="As in `agents`.")
    rounds: Count | None = Field(default=None, description="As in `agents`.")
    baseline: dict[str, JsonValue] | None = Field(default=None, description="As in `agents`.")
    chimera: dict[str, JsonValue] | None = Field(default=None, description="As in `agents`.")
    chimera2: dict[str, JsonValue] | None = Field(default=None, description="As in `agents`.")

    @field_validator("id")
    @classmethod
    def _can_be_a_folder(cls, name: int | str) -> int | str:
        _check_is_file_name(str(name), name)
        return name


class Agents(_Crew):
    """Agents that work at the same time. Without `members` the scenario makes `count` of them.

    baseline_vs_chimera  the first has the options of `baseline`, the second those of `chimera`, and so on in turn
    chimera_hetero       those of `chimera` and of `chimera2` in turn; of `chimera` alone where there is no other
    chimera_homo         all have those of `chimera`
    Any other scenario is what its `members` are.
    """

    scenario: str = Field(
        description="`baseline_vs_chimera`, `chimera_hetero`, `chimera_homo`, or a name of your own for `members`."
    )
    workload: Literal["two-stage", "micro", "single", "synthetic"] = Field(
        default="two-stage", description="The calls of one agent in one round; `single` is not streamed."
    )
    count: Count = Field(default=2, description="Agents that the scenario makes.")
    members: tuple[Member, ...] = Field(default=(), description="The agents, one by one, instead of a scenario.")
    permits: Count | None = Field(default=None, description="Agents that may be at work at once; left out: all.")
    think_ms: Pause = Field(default=0.0, description="From an answer to the agent's next call.")
    rounds: Count = Field(default=1, description="How often each agent does its work in a run.")
    warmup_requests: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Of each agent before each run, not recorded."
    )
    solo: bool = Field(default=True, description="Measure each agent alone as well; the speedup needs it.")
    data: str | None = Field(default=None, description="A folder that the prompts list; left out: a made-up listing.")
    artifacts: bool = Field(
        default=False, description="Keep the answers' text, and write the files of the multi-agent guide."
    )
    baseline: dict[str, JsonValue] = Field(default_factory=dict, description="Options of baseline agents.")
    chimera: dict[str, JsonValue] = Field(default_factory=dict, description="Options of chimera agents.")
    chimera2: dict[str, JsonValue] | None = Field(
        default=None, description="Options of the second kind of chimera agents."
    )
    configurations: tuple[Configuration, ...] = Field(
        default=(), strict=False, description="Make a campaign of each of these, in turns, instead of one."
    )

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("scenario") is None:
            if data.get("members"):
                return {**data, "scenario": "members"}
            listed = data.get("configurations")
            # Where every configuration names its own, there is none to name for all.
            if isinstance(listed, list) and listed and all(isinstance(c, dict) and c.get("scenario") for c in listed):
                return {**data, "scenario": listed[0]["scenario"]}
            fault(f"is missing: choose one of {', '.join(SCENARIOS)}, or list members", at="scenario")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Agents:
        _check_scenario(self.scenario, self.members, "scenario")
        seen: set[str] = set()
        for index, test in enumerate(self.configurations):
            at = f"configurations[{index}]"
            if str(test.id) in seen:
                fault(f"has the id {test.id} of another one: give each its own", at)
            seen.add(str(test.id))
            members = self.members if test.members is None else test.members
            _check_scenario(test.scenario or self.scenario, members, f"{at}.scenario" if test.scenario else at)
        return self

    def configured(self, test: Configuration) -> Agents:
        """The agents of one configuration of the matrix."""
        given = {key: value for key, value in test if key not in ("id", "phase") and value is not None}
        return self.model_copy(update={**given, "configurations": ()})

    @property
    def calls_each(self) -> int:
        """Calls of one agent in one run."""
        return self.rounds * CALLS[self.workload]

    @property
    def load(self) -> Closed:
        """The load that the agents amount to: all of them in flight until their calls are made."""
        count = len(self.crew)
        return Closed(arrivals="closed", concurrency=count, requests=count * self.calls_each)

    @property
    def crew(self) -> tuple[Member, ...]:
        """The agents, each with its name, role and options."""
        members = self.members or [Member(name=name, options=self._options(i)) for i, name in enumerate(self._names())]
        return tuple(
            member.model_copy(update={"role": member.role or ROLES[i % len(ROLES)]}) for i, member in enumerate(members)
        )

    def _names(self) -> list[str]:
        return [f"{ROLES[i % 2]}-{i // 2 + 1}" if i > 1 else ROLES[i] for i in range(self.count)]

    def _options(self, index: int) -> dict[str, JsonValue]:
        first = index % 2 == 0
        if self.scenario == "baseline_vs_chimera" and first:
            return self.baseline
        if self.scenario == "chimera_hetero" and not first and self.chimera2 is not None:
            return {**CHIMERA_DEFAULTS, **self.chimera2}
        return {**CHIMERA_DEFAULTS, **self.chimera}


def _check_is_file_name(name: str, given: int | str | None = None) -> None:
    """Refuse what cannot be the name of a file everywhere. given: the value as the profile has it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        fault(f"must be letters, digits, dots, hyphens and underscores, got {brief(name if given is None else given)}")


def _check_scenario(scenario: str, members: tuple[Member, ...], at: str) -> None:
    if members and scenario in SCENARIOS:
        fault(f"{scenario} makes its own agents: remove members, or give the scenario another name", at)
    if not members and scenario not in SCENARIOS:
        hint = did_you_mean(scenario, SCENARIOS)
        fault(f"must be one of {', '.join(SCENARIOS)}, or list members, got {brief(scenario)}{hint}", at)
