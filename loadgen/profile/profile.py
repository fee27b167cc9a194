"""A profile: one frozen and validated description of what to measure, and what of it may be written down.

The models of this package are the whole vocabulary of a profile file. Nothing is guessed in silence: what may be left
out has its default there, and `Profile.resolved()` writes it all down. Values that may hold a secret (headers, text
that was written where the name of an environment variable belongs) never reach a message nor `resolved()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo, ValidatorFunctionWrapHandler

from loadgen.profile.agents import Agents
from loadgen.profile.base import Count, Model, brief, fault, http_parts
from loadgen.profile.loads import Load, resolved
from loadgen.profile.secrets import REDACTED, without_secret_query, without_secrets
from loadgen.profile.settings import CampaignSpec, Limits, Telemetry, check_objectives
from loadgen.profile.target import TargetSpec
from loadgen.profile.work import DEFAULT_PROMPT_TOKENS, Dist, Work

__all__ = ["Profile"]

DEFAULT_AGENT_TOKENS = 256
LEAST_READ, MOST_READ = 256, 16 << 20


class Profile(Model):
    """Everything that a campaign follows. An empty `target` leaves it to the caller to find a server."""

    target: tuple[TargetSpec, ...] = Field(
        default=(), strict=False, description="The servers to load: one mapping, or a list of them."
    )
    agents: Agents | None = Field(default=None, description="Agents instead of a load.")  # before the load they make
    load: Load = Field(description="How requests arrive; left out with agents, whose calls are the load.")
    work: Work = Field(default_factory=lambda: Work.model_validate({}), description="What each request asks.")
    runs: Count = Field(default=1, description="How often to repeat it all.")
    campaign: CampaignSpec = Field(default_factory=CampaignSpec, description="How runs are put together.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="Makes schedule and prompts repeatable; left out: one is drawn and recorded."
    )
    workers: Count = Field(default=1, description="Processes that share the load.")
    objectives: dict[str, float] = Field(
        default_factory=dict, description="Bounds that must hold, such as `ttft_p99_ms: 500` or `error_rate: 0.01`."
    )
    limits: Limits = Field(default_factory=Limits, description="When to give up.")
    telemetry: Telemetry = Field(default_factory=Telemetry, description="What is sampled beside the runs.")
    tier: Literal["auto", "kernel", "callback", "aiohttp"] = Field(
        default="auto", description="How tokens are stamped."
    )
    loop: Literal["auto", "uvloop", "asyncio"] = Field(default="auto", description="The event loop.")
    read_bytes: Annotated[int, Field(ge=LEAST_READ, le=MOST_READ)] | None = Field(
        default=None, description="Size of one read; with `tier: kernel` alone."
    )
    proxy: str | None = Field(default=None, description="An HTTP proxy (lowers the tier to aiohttp).")

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("agents") is None:
            return data
        work = data.get("work") or {}
        if isinstance(work, dict):
            work = {"output_tokens": DEFAULT_AGENT_TOKENS, **work}
        return {"load": {}, **data, "work": work}

    @field_validator("load", mode="wrap")
    @classmethod
    def _of_the_agents(cls, given: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """With agents the load is theirs. A manifest states it as well; a profile has no other to give."""
        agents: Agents | None = info.data.get("agents")
        if agents is None:  # none, or with a fault, which is reported before any of the load
            return validate(given)
        load = agents.load
        if given:
            try:
                same = validate(given) == load
            except ValidationError:
                same = False
            if not same:
                fault("has no meaning beside agents, whose calls are the load: remove it")
        return load

    @field_validator("target", mode="before")
    @classmethod
    def _one_or_many(cls, data: Any) -> Any:
        if data is None:
            return ()
        if isinstance(data, dict):
            return (data,)
        if not isinstance(data, list | tuple):
            fault(f"must be a mapping with url, or a list of them, got {brief(data)}")
        return data

    @field_validator("target")
    @classmethod
    def _names_differ(cls, targets: tuple[TargetSpec, ...]) -> tuple[TargetSpec, ...]:
        seen: set[str] = set()
        for target in targets:
            if target.name in seen:
                fault(f"has two entries named {target.name}: name each server once, or give each its own name")
            seen.add(target.name)
        return targets

    @field_validator("objectives")
    @classmethod
    def _known_and_sane(cls, objectives: dict[str, float]) -> dict[str, float]:
        check_objectives(objectives)
        return objectives

    @field_validator("proxy")
    @classmethod
    def _proxy_is_a_url(cls, proxy: str | None) -> str | None:
        if proxy is not None:
            http_parts(proxy)  # it may hold credentials, so no message repeats it
        return proxy

    @model_validator(mode="after")
    def _agents_fit(self) -> Profile:
        agents = self.agents
        if agents is None:
            return self
        if self.workers > 1:
            fault("cannot go with agents, which share one coordinator: remove it", at="workers")
        if self.work.dataset is not None:
            fault("has no meaning beside agents: remove it", at="work.dataset")
        if self.work.output_tokens is None or self.work.output_tokens.fixed is None:
            fault("must be one number beside agents, whose work is the same in every run", at="work.output_tokens")
        if agents.workload != "synthetic" and self.work.prompt_tokens != Dist(fixed=DEFAULT_PROMPT_TOKENS):
            fault(f"has no meaning beside the workload {agents.workload}: remove it", at="work.prompt_tokens")
        for name in ("system", "shared_prefix_tokens"):
            if getattr(self.work, name) is not None:
                fault("has no meaning beside agents: remove it", at=f"work.{name}")
        if self.work.cache != "unique":
            fault("must be unique beside agents, or a run would be answered from the cache of another", "work.cache")
        if self.target:
            self._check_members(agents)
        return self

    def _check_members(self, agents: Agents) -> None:
        names = [target.name for target in self.target]
        for crew in (agents, *(agents.configured(test) for test in agents.configurations)):
            for index, member in enumerate(crew.members):
                at = f"agents.members[{index}].target"
                if isinstance(member.target, int) and not 0 <= member.target < len(names):
                    fault(f"must be from 0 to {len(names) - 1}, for there are {len(names)}, got {member.target}", at)
                if isinstance(member.target, str) and member.target not in names:
                    fault(f"is none of the targets {', '.join(names)}, got {brief(member.target)}", at)

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.campaign.until is not None and "runs" in self.model_fields_set:
            fault("has no meaning beside campaign.until, which decides how many runs are made: remove it", "runs")
        if self.read_bytes is not None and self.tier != "kernel":
            fault("has a meaning only when tier is kernel: set that, or remove it", "read_bytes")
        most = self.load.most_in_flight
        if most is not None and most < self.workers:
            name = "load.max_in_flight" if self.load.is_open else "the concurrency of load"
            text = f"must be at most {name} ({most}), got {self.workers}: some would have nothing to send, lower it"
            fault(text, "workers")
        return self

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The servers to load, in the order given."""
        return self.target

    def with_agents(self, agents: Agents, **more: Any) -> Profile:
        """The same profile for other agents; more: other fields to set."""
        return self.model_copy(update={"agents": agents, "load": agents.load, **more})

    def resolved(self) -> dict[str, JsonValue]:
        """Every setting, defaults included, as plain JSON types; what may be a secret is redacted."""
        plain = self.model_dump(mode="json")
        plain["load"] = resolved(self.load)
        if self.campaign.until is not None:
            del plain["runs"]
        if self.read_bytes is None:
            del plain["read_bytes"]
        for target in plain["target"]:
            # Not by name: whatever a gateway calls its key, it must not get out.
            target["headers"] = dict.fromkeys(target["headers"], REDACTED)
            target["options"] = without_secrets(target["options"])
            target["url"] = without_secret_query(target["url"])
            target["path"] = target["path"] and without_secret_query(target["path"])
        if self.agents is None:
            del plain["agents"]
        else:
            plain["agents"] = without_secrets(plain["agents"])
            if self.agents.workload != "synthetic":
                plain["work"] = {"output_tokens": plain["work"]["output_tokens"]}
        plain["telemetry"]["exporters"] = [without_secret_query(url) for url in self.telemetry.exporters]
        if self.proxy is not None:
            parts = urlsplit(self.proxy)
            plain["proxy"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return plain

    def withheld(self) -> list[str]:
        """The options that would have to be given again, because `resolved()` leaves out what may be a secret."""
        return list(dict.fromkeys(_withheld(self)))


def _withheld(profile: Profile) -> Iterator[str]:
    for target in profile.target:
        for name in target.headers:
            yield f"--header '{name}: ...'"
        redacted = without_secrets(target.options)
        yield from (f"--option {name}=..." for name, value in target.options.items() if redacted[name] != value)
        if target.path and without_secret_query(target.path) != target.path:
            yield "--path"
        if without_secret_query(target.url) != target.url:
            yield "--url"
    if profile.proxy is not None and "@" in urlsplit(profile.proxy).netloc:
        yield "--proxy"
