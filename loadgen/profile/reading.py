"""A profile: YAML and overrides in, one frozen and validated description of the load to offer out.

The models below are the whole vocabulary of a profile file: an unknown key, a wrong type or two settings that
contradict each other is a `UsageError`, one line that names the file, the path to the key, the value and the cure.
Nothing is guessed in silence: what may be left out has its default here, and `Profile.resolved()` writes it all down.

Only the first fault is told, for the rest often follow from it. Values that may hold a secret (headers, whatever was
written where the name of an environment variable belongs) never reach a message nor `resolved()`.
Reading the named file and listing the shipped ones is all this module does outside itself; no clock, no network.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn
from urllib.parse import SplitResult, urlsplit, urlunsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from loadgen.errors import UsageError

__all__ = [
    "CampaignSpec",
    "Dist",
    "Limits",
    "Load",
    "Member",
    "Profile",
    "Stage",
    "TargetSpec",
    "Telemetry",
    "Work",
    "load",
    "shipped",
    "without_secret_query",
    "without_secrets",
]

COMMAND_LINE = "command line"
MOST_SCHEDULED = 100_000_000  # offsets are drawn before the run, 8 bytes each: 0.8 GB
MOST_TOKENS = 10_000_000
LEAST_HELD = 0.1  # requests in a burst and a calm of an mmpp: with fewer, nothing of them shows in the arrivals
LEAST_READ, MOST_READ = 256, 16 << 20
SHORTEST_INTERVAL_S = 0.02  # between samples; below it looking disturbs what is looked at
REDACTED = "[redacted]"


def _fault(text: str, at: str = "") -> NoReturn:
    """Raise what `_one_line` prints as `<file>: <path>[.at] <text>`."""
    raise PydanticCustomError("profile", "{text}", {"text": text, "at": at})


def _did_you_mean(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Unknown keys are told before anything else, for a misspelt key also looks like a missing one."""
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                known = cls.model_fields
                hint = _did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
                _fault(f"is not a known key{hint}", at=str(key))
        return cls._completed(data)

    @classmethod
    def _completed(cls, data: Any) -> Any:
        """Return `data` in its full form: where a model has short forms or defaults that depend on other keys."""
        return data


Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Uniform(_Model):
    """Every whole number from low to high, both included."""

    low: Tokens
    high: Tokens

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.high < self.low:
            _fault(f"must be at least low ({self.low}), got {self.high}", at="high")
        return self


class Spread(_Model):
    """Mean and standard deviation before rounding, and limits that draws are clamped to."""

    mean: Positive
    sd: Annotated[float, Field(ge=0)]
    min: Tokens = 1
    max: Tokens = MOST_TOKENS

    @model_validator(mode="after")
    def _ordered(self) -> Spread:
        if self.max < self.min:
            _fault(f"must be at least min ({self.min}), got {self.max}", at="max")
        if not self.min <= self.mean <= self.max:
            _fault(f"must lie between min ({self.min}) and max ({self.max}), got {self.mean:g}", at="mean")
        return self


DISTS = ("fixed", "uniform", "normal", "lognormal")


class Dist(_Model):
    """A distribution of lengths in tokens: exactly one field is set. A bare number in YAML means `fixed`.

    lognormal takes the mean and standard deviation of the lengths themselves, not of their logarithms.
    """

    fixed: Tokens | None = None
    uniform: Uniform | None = None
    normal: Spread | None = None
    lognormal: Spread | None = None

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"fixed": data}
        if not isinstance(data, dict | Dist):
            _fault(f"must be a number of tokens or one of {', '.join(DISTS)}, got {_shown(data)}")
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> Dist:
        given = [name for name in DISTS if getattr(self, name) is not None]
        if len(given) != 1:
            _fault(f"needs exactly one of {', '.join(DISTS)}, got {' and '.join(given) or 'none'}")
        return self

    @property
    def most(self) -> int:
        """The longest length that can be drawn."""
        if self.fixed is not None:
            return self.fixed
        if self.uniform is not None:
            return self.uniform.high
        spread = self.normal or self.lognormal
        assert spread is not None
        return spread.max


def _http_parts(url: str, shown: str = "") -> SplitResult:
    """Take an absolute http(s) URL apart; `shown` ends the message about any other."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        _fault(f"is not a URL, write e.g. http://localhost:8000{'' if '@' in url else shown}")
    if parts.scheme not in ("http", "https") or not host:
        # Credentials can only stand before an @: a value that has one is not repeated.
        _fault(f"must start with http:// or https:// and name a host{'' if '@' in url else shown}")
    return parts


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: a token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


class TargetSpec(_Model):
    """One server to load. `options` go into the request body as they are."""

    url: str
    name: str = ""
    api: Literal["auto", "openai", "ollama", "lmstudio"] = "auto"
    model: str = "auto"
    path: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    api_key_env: str | None = None
    tokenizer: str | None = None  # a directory that holds tokenizer.json
    force_length: bool = True  # ask for exactly output_tokens where the server can
    verify_tls: bool = True
    ca_file: str | None = None
    weight: Positive = 1.0  # share of the requests, relative to the other targets

    @field_validator("url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        parts = _http_parts(url, shown=f", got {_shown(url)}")
        if parts.username or parts.password:
            _fault("must not hold credentials: name an environment variable in api_key_env instead")
        return url.rstrip("/")

    @field_validator("path")
    @classmethod
    def _from_the_root(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            _fault(f"must start with /, e.g. /v1/completions, got {_shown(path)}")
        return path

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                _fault("holds a name that HTTP does not allow: use letters, digits and hyphens")
            if not _HEADER_VALUE.fullmatch(value):
                _fault("has a value that HTTP does not allow: write it in one line of Latin-1", at=name)
        return headers

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            _fault("must be the name of an environment variable that holds the key, not the key itself")
        return name

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("url"), str):
            try:
                parts = urlsplit(data["url"])
                port = parts.port or (443 if parts.scheme == "https" else 80)
            except ValueError:
                return data  # the check of url tells it better
            return {**data, "name": f"{parts.hostname}:{port}"}
        return data


class Stage(_Model):
    """A part of a load. Its rate or concurrency moves linearly to `ramp_to` by the stage's end, if that is given."""

    duration_s: Positive | None = None
    requests: Count | None = None
    rate_per_s: Positive | None = None
    concurrency: Count | None = None
    ramp_to: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if (self.duration_s is None) == (self.requests is None):
            _fault("needs exactly one of duration_s and requests")
        if (self.rate_per_s is None) == (self.concurrency is None):
            _fault("needs exactly one of rate_per_s and concurrency")
        if self.concurrency is not None:
            if self.duration_s is None:
                _fault("needs duration_s: the stages of a closed loop are set by time, not by requests")
            if self.ramp_to is not None and self.ramp_to != int(self.ramp_to):
                _fault(f"must be a whole number of requests in flight, got {self.ramp_to:g}", at="ramp_to")
        return self

    @property
    def mean_rate_per_s(self) -> float:
        """Mean of the rate over the stage; open loops only."""
        assert self.rate_per_s is not None
        return (self.rate_per_s + (self.ramp_to or self.rate_per_s)) / 2


Arrivals = Literal["closed", "poisson", "constant", "gamma", "mmpp", "burst"]


class Mmpp(_Model):
    """Bursts and calms that take turns (MMPP-2): arrivals are Poisson in each, its length is exponential."""

    burst_s: Positive  # mean length
    calm_s: Positive
    calm_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # rate of a calm over that of a burst; 0: on and off

    @property
    def burst_rate(self) -> float:
        """The rate within a burst over the mean rate."""
        return (self.burst_s + self.calm_s) / (self.burst_s + self.calm_share * self.calm_s)

    def dispersion(self, rate_per_s: float) -> float:
        """Return variance / mean of the counts in long intervals, at a mean rate of `rate_per_s` (METHODOLOGY 2.5)."""
        burst = self.burst_rate * rate_per_s
        calm = self.calm_share * burst
        leave_burst, leave_calm = 1 / self.burst_s, 1 / self.calm_s
        weight = (leave_burst + leave_calm) ** 2 * (burst * leave_calm + calm * leave_burst)
        return 1 + 2 * (burst - calm) ** 2 * leave_burst * leave_calm / weight


class Load(_Model):
    """How requests arrive. Warm-up comes on top of `requests` and `duration_s`, at the load's first rate.

    With both `requests` and `duration_s` the load ends at whichever comes first.
    """

    arrivals: Arrivals  # left out: closed with concurrency, gamma with burstiness, mmpp with mmpp, else poisson
    concurrency: Count | None = None
    rate_per_s: Positive | None = None
    burstiness: Positive = 0.25  # gamma shape b: the CV of the gaps is 1/sqrt(b); 0.25 gives CV 2
    mmpp: Mmpp | None = None  # rate_per_s is the mean over its bursts and calms
    requests: Count | None = None
    duration_s: Positive | None = None
    warmup_requests: Annotated[int, Field(ge=0)] = 0
    warmup_s: Annotated[float, Field(ge=0)] = 0.0
    max_in_flight: Count | None = None  # caps an open loop; the wait counts in what the user feels
    stages: tuple[Stage, ...] = Field(default=(), strict=False)

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("arrivals") is not None:
            return data
        stages = data.get("stages")
        first = stages[0] if isinstance(stages, list | tuple) and stages and isinstance(stages[0], dict) else {}
        rated = data.get("rate_per_s") is not None or first.get("rate_per_s") is not None
        if rated:
            if data.get("concurrency") is not None:
                _fault("has both concurrency and rate_per_s: keep one (max_in_flight is the cap of an open loop)")
            unevenly = (name for name, key in (("gamma", "burstiness"), ("mmpp", "mmpp")) if data.get(key) is not None)
            return {**data, "arrivals": next(unevenly, "poisson")}
        if data.get("concurrency") is not None or first.get("concurrency") is not None:
            return {**data, "arrivals": "closed"}
        _fault("needs concurrency (a closed loop) or rate_per_s (an open loop)")

    @model_validator(mode="after")
    def _consistent(self) -> Load:
        self._check_strays()
        self._check_extent()
        if self.stages:
            self._check_stages()
        elif self.arrivals == "closed" and self.concurrency is None:
            _fault("needs concurrency when arrivals is closed")
        elif self.arrivals in ("poisson", "constant", "gamma", "mmpp") and self.rate_per_s is None:
            _fault(f"needs rate_per_s when arrivals is {self.arrivals}")
        if self.is_open and self.arrivals != "burst":
            self._check_size()
        return self

    def _check_strays(self) -> None:
        """Refuse what has no meaning beside the arrivals chosen."""
        if self.arrivals == "closed":
            if self.rate_per_s is not None:
                _fault("has no meaning when arrivals is closed: remove it, or set arrivals to poisson", "rate_per_s")
            if self.max_in_flight is not None:
                _fault("has no meaning when arrivals is closed: concurrency is its cap, remove it", "max_in_flight")
        elif self.concurrency is not None:
            _fault(f"has no meaning when arrivals is {self.arrivals}: use max_in_flight to cap it", "concurrency")
        if "burstiness" in self.model_fields_set and self.arrivals != "gamma":
            _fault("has a meaning only when arrivals is gamma: remove it, or set arrivals to gamma", "burstiness")
        if self.mmpp is not None and self.arrivals != "mmpp":
            _fault("has a meaning only when arrivals is mmpp: remove it, or set arrivals to mmpp", "mmpp")
        if self.arrivals == "mmpp":
            self._check_mmpp()
        if self.arrivals == "burst":
            for name in ("rate_per_s", "duration_s"):
                if getattr(self, name) is not None:
                    _fault("has no meaning when arrivals is burst: all requests are sent at once, remove it", name)
            for name in ("warmup_requests", "warmup_s"):
                if getattr(self, name):
                    _fault("has no meaning when arrivals is burst: there is no steady part to reach, remove it", name)

    def _check_mmpp(self) -> None:
        if self.stages:
            _fault("cannot go with arrivals mmpp, whose bursts have one mean rate: remove them", "stages")
        if self.mmpp is None:
            _fault("needs mmpp: {burst_s: ..., calm_s: ...} when arrivals is mmpp")
        held = (self.rate_per_s or math.inf) * (self.mmpp.burst_s + self.mmpp.calm_s)
        if held < LEAST_HELD:
            _fault(f"has bursts too short to tell from poisson: {held:.2g} requests from one to the next", "mmpp")

    def _check_extent(self) -> None:
        """Refuse a load without an end, or with two of them."""
        if self.warmup_requests and self.warmup_s:
            _fault("and warmup_s are both given: keep one", "warmup_requests")
        if self.stages:
            for name in ("requests", "duration_s", "rate_per_s", "concurrency"):
                if getattr(self, name) is not None:
                    _fault("has no meaning beside stages: each stage has its own, remove it", name)
        elif self.arrivals == "burst":
            if self.requests is None:
                _fault("needs requests when arrivals is burst: that many are sent at once")
        elif self.requests is None and self.duration_s is None:
            _fault("needs requests or duration_s, else it would never end")

    def _check_stages(self) -> None:
        if self.arrivals == "burst":
            _fault("have no meaning when arrivals is burst: remove them", "stages")
        wanted = "rate_per_s" if self.is_open else "concurrency"
        for index, stage in enumerate(self.stages):
            if getattr(stage, wanted) is None:
                _fault(f"needs {wanted}: arrivals is {self.arrivals}", f"stages[{index}]")
        if not self.is_open and self.warmup_requests:
            _fault("cannot go with a closed loop's stages, which are set by time: use warmup_s", "warmup_requests")

    def _check_size(self) -> None:
        expected = float(self.warmup_requests)
        for index, stage in enumerate(self.parts):
            expected += stage.requests or stage.mean_rate_per_s * (stage.duration_s or 0.0)
            expected += (stage.rate_per_s or 0.0) * self.warmup_s if index == 0 else 0.0
        if self.requests is not None:
            expected = min(expected, self.requests + (self.rate_per_s or 0.0) * self.warmup_s + self.warmup_requests)
        if expected > MOST_SCHEDULED:
            most = f"{MOST_SCHEDULED:.0e}"
            _fault(f"would schedule about {expected:.3g} requests, more than {most}: lower the rate or the duration")

    @property
    def is_open(self) -> bool:
        """Arrivals are set by the schedule, not by completions."""
        return self.arrivals != "closed"

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The stages of an open loop, or the one stage that a rate without stages amounts to; a burst has none.

        A load with both `requests` and `duration_s` shows the duration here: `requests` is a cap on the whole.
        """
        if self.rate_per_s is None:
            return self.stages
        requests = self.requests if self.duration_s is None else None
        return (Stage(rate_per_s=self.rate_per_s, duration_s=self.duration_s, requests=requests),)


DEFAULT_PROMPT_TOKENS = 512
DEFAULT_OUTPUT_TOKENS = 128


class Work(_Model):
    """What each request asks.

    prompt_tokens: of the user's prompt, prefixes included; `system` and the server's template come on top.
    output_tokens: null asks for the length the dataset tells, and where there is none leaves it to the server.
    """

    prompt_tokens: Dist | None = None  # 512 unless there is a dataset
    output_tokens: Dist | None = None  # left out: 128 unless there is a dataset
    cache: Literal["unique", "shared", "none"] = "unique"
    shared_prefix_tokens: Tokens | None = None
    dataset: str | None = None
    dataset_format: Literal["auto", "openai", "prompt", "sharegpt"] = "auto"
    system: str | None = None
    order: Literal["shuffle", "sequential"] = "shuffle"

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("dataset") is not None:
            return data
        filled = {"output_tokens": DEFAULT_OUTPUT_TOKENS, **data}
        if filled.get("prompt_tokens") is None:
            filled["prompt_tokens"] = DEFAULT_PROMPT_TOKENS
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> Work:
        if self.dataset is not None and self.prompt_tokens is not None:
            _fault("has no meaning beside dataset, whose prompts have their own length: remove it", "prompt_tokens")
        if self.dataset is None:
            for name in ("dataset_format", "order"):
                if name in self.model_fields_set and getattr(self, name) not in ("auto", "shuffle"):
                    _fault("has a meaning only beside dataset: remove it", name)
        self._check_shared()
        return self

    def _check_shared(self) -> None:
        if (self.cache == "shared") != (self.shared_prefix_tokens is not None):
            if self.cache == "shared":
                _fault("needs shared_prefix_tokens when cache is shared")
            text = f"has no meaning when cache is {self.cache}: remove it, or set cache to shared"
            _fault(text, "shared_prefix_tokens")
        longest = self.prompt_tokens.most if self.prompt_tokens else None
        if self.shared_prefix_tokens and longest and self.shared_prefix_tokens >= longest:
            text = f"must be smaller than the longest prompt ({longest}), got {self.shared_prefix_tokens}"
            _fault(text, "shared_prefix_tokens")


class Limits(_Model):
    """When to give up. Reaching one is an outcome of the request, never an error of the run."""

    connect_s: Positive = 10.0
    first_token_s: Positive = 120.0
    between_tokens_s: Positive = 60.0
    total_s: Positive = 600.0
    drain_s: Annotated[float, Field(ge=0)] = 30.0  # how long requests in flight may finish after the last arrival
    no_progress_s: Positive = 180.0  # nothing at all arrived on any connection


class CampaignSpec(_Model):
    """How several runs are put together; what one run does is said by load and work."""

    order: Literal["randomised", "fixed"] = "randomised"  # of the arms within a block
    cooldown_s: Annotated[float, Field(ge=0)] = 0.0  # between runs
    isolation: Literal["none", "unload", "process"] = "none"
    control: str | None = None  # this arm is run once more at the start and at the end
    until: Annotated[float, Field(gt=0, lt=1)] | None = None  # repeat until so narrow, relative; 2% or 0.02
    until_metric: Literal["both", "ttft_ms", "output_tokens_per_s"] = "both"

    @classmethod
    def _completed(cls, data: Any) -> Any:
        until = data.get("until") if isinstance(data, dict) else None
        if not isinstance(until, str):
            return data
        number = until.strip().removesuffix("%")
        try:
            return {**data, "until": float(number) / (100 if number != until.strip() else 1)}
        except ValueError:
            _fault(f"must be a share such as 2% or 0.02, got {_shown(until)}", at="until")

    @model_validator(mode="after")
    def _consistent(self) -> CampaignSpec:
        if self.until is None and self.until_metric != "both":
            _fault("has a meaning only beside until: remove it", "until_metric")
        return self


ROLES = ("collector", "insight")
SCENARIOS = ("baseline_vs_chimera", "chimera_hetero", "chimera_homo")
CALLS = {"two-stage": 2, "micro": 1, "single": 1, "synthetic": 1}  # of one agent in one round
CHIMERA_DEFAULTS = {"top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1}
DEFAULT_AGENT_TOKENS = 256

Options = dict[str, Any]


class Member(_Model):
    """One agent. Its options go into the request as those of a target do, over that target's own."""

    name: str
    target: int | str | None = None  # a place in the list of targets or a name; left out: dealt out in turn
    role: Literal["collector", "insight"] | None = None  # which prompt of the workload; left out: in turn
    options: Options = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _can_be_an_arm(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            _fault(f"must be letters, digits, dots, hyphens and underscores, got {_shown(name)}")
        return name


class _Crew(_Model):
    """What may differ between the configurations of a sweep."""

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
                _fault(f"has two agents named {member.name}: give each its own name")
            seen.add(member.name)
        return members


class Configuration(_Crew):
    """One test of a sweep: what it sets goes over the section around it."""

    id: int | str
    phase: Count = 1
    scenario: str | None = None
    count: Count | None = None
    members: tuple[Member, ...] | None = None
    permits: Count | None = None
    think_ms: Annotated[float, Field(ge=0)] | None = None
    rounds: Count | None = None
    baseline: Options | None = None
    chimera: Options | None = None
    chimera2: Options | None = None

    @field_validator("id")
    @classmethod
    def _can_be_a_folder(cls, name: int | str) -> int | str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)):
            _fault(f"must be letters, digits, dots, hyphens and underscores, got {_shown(name)}")
        return name


class Agents(_Crew):
    """Agents that work at the same time. Without `members` the scenario makes `count` of them.

    baseline_vs_chimera  the first has the options of `baseline`, the second those of `chimera`, and so on in turn
    chimera_hetero       those of `chimera` and of `chimera2` in turn; of `chimera` alone where there is no other
    chimera_homo         all have those of `chimera`
    Any other scenario is what its `members` are.
    """

    scenario: str
    workload: Literal["two-stage", "micro", "single", "synthetic"] = "two-stage"
    count: Count = 2
    members: tuple[Member, ...] = ()
    permits: Count | None = None  # agents that may be at work at once; left out: all
    think_ms: Annotated[float, Field(ge=0)] = 0.0  # from an answer to the agent's next call
    rounds: Count = 1  # how often each agent does its work in a run
    warmup_requests: Annotated[int, Field(ge=0)] = 1  # of each agent before each run, not recorded
    solo: bool = True  # measure each agent alone as well; without it no speedup can be told
    data: str | None = None  # a folder to list in the prompts; left out: a made-up listing
    artifacts: bool = False  # keep the answers' text, and write the files of the multi-agent guide
    baseline: Options = Field(default_factory=dict)
    chimera: Options = Field(default_factory=dict)
    chimera2: Options | None = None
    configurations: tuple[Configuration, ...] = Field(default=(), strict=False)

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("scenario") is None:
            if data.get("members"):
                return {**data, "scenario": "members"}
            listed = data.get("configurations")
            # Where every configuration names its own, there is none to name for all.
            if isinstance(listed, list) and listed and all(isinstance(c, dict) and c.get("scenario") for c in listed):
                return {**data, "scenario": listed[0]["scenario"]}
            _fault(f"is missing: choose one of {', '.join(SCENARIOS)}, or list members", at="scenario")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Agents:
        _check_scenario(self.scenario, self.members, "scenario")
        seen: set[str] = set()
        for index, one in enumerate(self.configurations):
            at = f"configurations[{index}]"
            if str(one.id) in seen:
                _fault(f"has the id {one.id} of another one: give each its own", at)
            seen.add(str(one.id))
            members = self.members if one.members is None else one.members
            _check_scenario(one.scenario or self.scenario, members, f"{at}.scenario" if one.scenario else at)
        return self

    def configured(self, one: Configuration) -> Agents:
        """Return the agents of one configuration of the sweep."""
        given = {key: value for key, value in one if key not in ("id", "phase") and value is not None}
        return self.model_copy(update={**given, "configurations": ()})

    @property
    def calls_each(self) -> int:
        """Calls of one agent in one run."""
        return self.rounds * CALLS[self.workload]

    @property
    def crew(self) -> tuple[Member, ...]:
        """The agents, each with its name, role and options."""
        members = self.members or [Member(name=name, options=self._options(i)) for i, name in enumerate(self._names())]
        return tuple(
            member.model_copy(update={"role": member.role or ROLES[i % len(ROLES)]}) for i, member in enumerate(members)
        )

    def _names(self) -> list[str]:
        return [f"{ROLES[i % 2]}-{i // 2 + 1}" if i > 1 else ROLES[i] for i in range(self.count)]

    def _options(self, index: int) -> Options:
        first = index % 2 == 0
        if self.scenario == "baseline_vs_chimera" and first:
            return self.baseline
        if self.scenario == "chimera_hetero" and not first and self.chimera2 is not None:
            return {**CHIMERA_DEFAULTS, **self.chimera2}
        return {**CHIMERA_DEFAULTS, **self.chimera}


def _check_scenario(scenario: str, members: tuple[Member, ...], at: str) -> None:
    if members and scenario in SCENARIOS:
        _fault(f"{scenario} makes its own agents: remove members, or give the scenario another name", at)
    if not members and scenario not in SCENARIOS:
        hint = _did_you_mean(scenario, SCENARIOS)
        _fault(f"must be one of {', '.join(SCENARIOS)}, or list members, got {_shown(scenario)}{hint}", at)


class Telemetry(_Model):
    """What is sampled beside the runs: the host, GPUs, what the servers and exporters tell of themselves."""

    interval_s: Annotated[float, Field(ge=0)] = 0.25  # 0: nothing is sampled
    gpu: Literal["auto", "nvml", "amdgpu", "off"] = "auto"
    exporters: tuple[str, ...] = Field(default=(), strict=False)  # URLs of a dcgm-exporter or node exporter

    @field_validator("interval_s")
    @classmethod
    def _not_too_often(cls, interval_s: float) -> float:
        if 0 < interval_s < SHORTEST_INTERVAL_S:
            _fault(f"must be 0 (off) or at least {SHORTEST_INTERVAL_S:g}, got {interval_s:g}")
        return interval_s

    @field_validator("exporters")
    @classmethod
    def _absolute(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = _http_parts(url, shown=f", got {_shown(url)}")
            if parts.username or parts.password:
                _fault("must not hold credentials: exporters are asked without any")
        return urls


OBJECTIVE_METRICS = ("ttft", "ttft_service", "event_gap", "itl", "tpot", "e2e", "queue")
OBJECTIVE_STATS = ("mean", "p50", "p90", "p95", "p99", "p999")
OBJECTIVE_SCALARS = ("requests_per_s_min", "output_tokens_per_s_min", "goodput_per_s_min", "error_rate")
OBJECTIVES = frozenset(OBJECTIVE_SCALARS) | {f"{m}_{s}_ms" for m in OBJECTIVE_METRICS for s in OBJECTIVE_STATS}


NO_LOAD = {"concurrency": 1, "requests": 1}  # in place of that of agents with a fault, which is told in its place


def agents_load(agents: Agents) -> dict[str, Any]:
    """Return the load that the agents amount to."""
    most = len(agents.crew)
    return {"concurrency": most, "requests": most * agents.calls_each}


def _is_sound(given: Any, model: type[_Model] = Agents) -> bool:
    try:
        model.model_validate(given)
    except ValidationError:
        return False
    return True


def _same_load(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return Load.model_validate(one) == Load.model_validate(other)


class Profile(_Model):
    """Everything a run is told. `target` may be empty: then the caller finds a server or says that there is none."""

    target: tuple[TargetSpec, ...] = Field(default=(), strict=False)
    load: Load  # with agents: as many in flight as there are agents, until their calls are made
    work: Work = Field(default_factory=lambda: Work.model_validate({}))
    runs: Count = 1
    agents: Agents | None = None
    campaign: CampaignSpec = Field(default_factory=CampaignSpec)
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None  # None: the caller draws one and records it
    workers: Count = 1
    objectives: dict[str, float] = Field(default_factory=dict)
    limits: Limits = Field(default_factory=Limits)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    tier: Literal["auto", "kernel", "callback", "aiohttp"] = "auto"
    loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    read_bytes: Annotated[int, Field(ge=LEAST_READ, le=MOST_READ)] | None = None  # of one read of the kernel tier
    proxy: str | None = None

    @classmethod
    def _completed(cls, data: Any) -> Any:
        given = data.get("agents") if isinstance(data, dict) else None
        if given is None:
            return data
        agents = given if isinstance(given, Agents) else Agents.model_validate(given) if _is_sound(given) else None
        load = NO_LOAD if agents is None else agents_load(agents)
        stated = data.get("load")  # by a manifest, but by nobody else
        if stated and agents is not None and not (_is_sound(stated, Load) and _same_load(stated, load)):
            _fault("has no meaning beside agents, whose calls are the load: remove it", at="load")
        work = data.get("work") or {}
        if isinstance(work, dict):
            work = {"output_tokens": DEFAULT_AGENT_TOKENS, **work}
        return {**data, "load": load, "work": work}

    @model_validator(mode="after")
    def _agents_fit(self) -> Profile:
        agents = self.agents
        if agents is None:
            return self
        if self.workers > 1:
            _fault("cannot go with agents, which share one coordinator: remove it", at="workers")
        if self.work.dataset is not None:
            _fault("has no meaning beside agents: remove it", at="work.dataset")
        if self.work.output_tokens is None or self.work.output_tokens.fixed is None:
            _fault("must be one number beside agents, whose work is the same in every run", at="work.output_tokens")
        if agents.workload != "synthetic" and self.work.prompt_tokens != Dist(fixed=DEFAULT_PROMPT_TOKENS):
            _fault(f"has no meaning beside the workload {agents.workload}: remove it", at="work.prompt_tokens")
        for name in ("system", "shared_prefix_tokens"):
            if getattr(self.work, name) is not None:
                _fault("has no meaning beside agents: remove it", at=f"work.{name}")
        if self.work.cache != "unique":
            _fault("must be unique beside agents, or a run would be answered from the cache of another", "work.cache")
        if self.target:
            self._check_members(agents)
        return self

    def _check_members(self, agents: Agents) -> None:
        names = [target.name for target in self.target]
        for one in (agents, *(agents.configured(c) for c in agents.configurations)):
            for index, member in enumerate(one.members):
                at = f"agents.members[{index}].target"
                if isinstance(member.target, int) and not 0 <= member.target < len(names):
                    _fault(f"must be from 0 to {len(names) - 1}, for there are {len(names)}, got {member.target}", at)
                if isinstance(member.target, str) and member.target not in names:
                    _fault(f"is none of the targets {', '.join(names)}, got {_shown(member.target)}", at)

    def with_agents(self, agents: Agents, **more: Any) -> Profile:
        """Return the same profile for other agents; more: other fields to set."""
        load = Load.model_validate(agents_load(agents))
        return self.model_copy(update={"agents": agents, "load": load, **more})

    @field_validator("target", mode="before")
    @classmethod
    def _one_or_many(cls, data: Any) -> Any:
        if data is None:
            return ()
        if isinstance(data, dict):
            return (data,)
        if not isinstance(data, list | tuple):
            _fault(f"must be a mapping with url, or a list of them, got {_shown(data)}")
        return data

    @field_validator("target")
    @classmethod
    def _names_differ(cls, targets: tuple[TargetSpec, ...]) -> tuple[TargetSpec, ...]:
        seen: set[str] = set()
        for target in targets:
            if target.name in seen:
                _fault(f"has two entries named {target.name}: name each server once, or give each its own name")
            seen.add(target.name)
        return targets

    @field_validator("objectives")
    @classmethod
    def _known_and_sane(cls, objectives: dict[str, float]) -> dict[str, float]:
        for name, bound in objectives.items():
            if name not in OBJECTIVES:
                hint = _did_you_mean(name, sorted(OBJECTIVES)) or ", write e.g. ttft_p99_ms or error_rate"
                _fault(f"is not a known objective{hint}", at=name)
            if name == "error_rate" and not 0 <= bound <= 1:
                _fault(f"must be a fraction from 0 to 1, got {bound:g}", at=name)
            if name != "error_rate" and bound <= 0:
                _fault(f"must be > 0, got {bound:g}", at=name)
        return objectives

    @field_validator("proxy")
    @classmethod
    def _proxy_is_a_url(cls, proxy: str | None) -> str | None:
        if proxy is not None:
            _http_parts(proxy)  # it may hold credentials, so no message repeats it
        return proxy

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if self.campaign.until is not None and "runs" in self.model_fields_set:
            _fault("has no meaning beside campaign.until, which decides how many runs are made: remove it", "runs")
        if self.read_bytes is not None and self.tier != "kernel":
            _fault("has a meaning only when tier is kernel: set that, or remove it", "read_bytes")
        load, workers = self.load, self.workers
        if load.max_in_flight is not None and load.max_in_flight < workers:
            most, name = load.max_in_flight, "load.max_in_flight"
        elif not load.is_open:
            most = max(int(stage.ramp_to or 0) for stage in load.stages) if load.stages else 0
            most = max(most, load.concurrency or 0, *(stage.concurrency or 0 for stage in load.stages))
            name = "the concurrency of load"
        else:
            return self
        if most < workers:
            text = f"must be at most {name} ({most}), got {workers}: some would have nothing to send, lower it"
            _fault(text, "workers")
        return self

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The servers to load, in the order given."""
        return self.target

    def resolved(self) -> dict[str, Any]:
        """Return every setting, defaults included, as plain JSON types; what may be a secret is redacted."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        if self.load.arrivals != "gamma":
            del plain["load"]["burstiness"]
        if self.load.arrivals != "mmpp":
            del plain["load"]["mmpp"]
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
        """Return the options that would have to be given again, for `resolved()` leaves out what may be a secret."""
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


_SECRET = re.compile(r"(?i)auth|api[-_]?key|^key$|[-_]key$|token$|secret|password|cookie|credential|signature")


def without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: REDACTED if _SECRET.search(str(key)) and isinstance(item, str) else without_secrets(item)
            for key, item in value.items()
        }
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def without_secret_query(url: str) -> str:
    """Return `url`, or a path, with the values in its query that may be secrets redacted."""
    parts = urlsplit(url)
    query = "&".join(
        f"{name}={REDACTED}" if _SECRET.search(name) else pair
        for pair in parts.query.split("&")
        for name in [pair.partition("=")[0]]
    )
    return urlunsplit(parts._replace(query=query))


# --- reading ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a key given twice is an error and 1e3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"the key {key.value} is given twice, keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(source: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read a profile, lay `overrides` over it and validate the sum.

    source: a path, the name of a shipped profile such as `quickstart`, or None for overrides alone.
    overrides: nested like the file; a None is "not given". What an override makes meaningless is dropped from
    the file's side: a concurrency replaces the file's rate and stages, a number of requests its duration, and so on.
    File names inside a profile are relative to the profile; those in overrides are left as they are.
    Raises UsageError.
    """
    given = _without_nones(overrides or {})
    if source is None:
        return _validated(given, COMMAND_LINE, {})
    path = _find(source)
    data = _read(path)
    _anchor(data, path.parent)
    return _validated(_merged(data, given), str(source) if Path(source) == path else path.name, given)


def shipped() -> dict[str, Path]:
    """Return the profiles that come with loadgen: name -> path."""
    package = Path(__file__).resolve().parents[1]
    folder = next((f for f in (package / "profiles", package.parent / "profiles") if f.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}


def _find(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    ours = shipped()
    name = str(source).removesuffix(".yaml")
    if name in ours:
        return ours[name]
    hint = _did_you_mean(name, ours) or f"; shipped profiles: {', '.join(ours)}"
    what = "is a folder, name a file in it" if path.is_dir() else f"no such file or shipped profile{hint}"
    raise UsageError(f"{source}: {what}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text at byte {error.start}, save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{path}: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: must be a mapping with load and work at its top, got {_shown(data)}")
    return data


def _anchor(data: dict[str, Any], folder: Path) -> None:
    """Make the file names inside `data` relative to `folder`, in place."""
    target = data.get("target")
    holders = [(t, key) for t in (target if isinstance(target, list) else [target]) for key in ("tokenizer", "ca_file")]
    for holder, key in [*holders, (data.get("work"), "dataset"), (data.get("agents"), "data")]:
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            holder[key] = str(folder / Path(holder[key]).expanduser())


# An override of the key on the left makes the file's keys on the right meaningless.
_REPLACES = {
    "load": {
        "concurrency": ("rate_per_s", "arrivals", "burstiness", "mmpp", "max_in_flight", "stages"),
        "rate_per_s": ("concurrency", "stages"),
        "requests": ("duration_s", "stages"),
        "duration_s": ("requests", "stages"),
        "stages": ("requests", "duration_s", "rate_per_s", "concurrency"),
        "warmup_requests": ("warmup_s",),
        "warmup_s": ("warmup_requests",),
    },
    "work": {"dataset": ("prompt_tokens",), "prompt_tokens": ("dataset", "dataset_format", "order")},
}


_AS_GIVEN = ("options", "objectives")  # their keys are the user's, and so is a null there


def _without_nones(given: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping in which nothing is left was not given either, or a fault of the file would be laid to the options."""
    pruned = {
        key: _without_nones(value) if isinstance(value, Mapping) and key not in _AS_GIVEN else value
        for key, value in given.items()
        if value is not None
    }
    return {key: value for key, value in pruned.items() if value != {} or given[key] == {}}


def _merged(data: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    out = dict(data)
    campaign = out.get("campaign")
    if (given.get("campaign") or {}).get("until") is not None:
        out.pop("runs", None)
    elif given.get("runs") is not None and isinstance(campaign, dict):
        out["campaign"] = {key: value for key, value in campaign.items() if key not in ("until", "until_metric")}
    for key, value in given.items():
        old = out.get(key)
        if key in _REPLACES and isinstance(old, dict) and isinstance(value, dict):
            dropped = {name for new in value for name in _REPLACES[key].get(new, ())}
            out[key] = {name: item for name, item in old.items() if name not in dropped} | value
            _drop_stale_arrivals(out[key], value)
        elif key == "target" and isinstance(old, list) and isinstance(value, dict) and "url" not in value:
            out[key] = [{**item, **value} if isinstance(item, dict) else item for item in old]
        elif isinstance(old, dict) and isinstance(value, dict):
            out[key] = {**old, **value}
        else:
            out[key] = value
    return out


def _drop_stale_arrivals(merged: dict[str, Any], given: dict[str, Any]) -> None:
    """Let a rate given on the command line open a file's closed loop, or replace its burst."""
    if "arrivals" in given:
        for arrivals, key in (("gamma", "burstiness"), ("mmpp", "mmpp")):
            if given["arrivals"] != arrivals and key not in given:
                merged.pop(key, None)
    elif "rate_per_s" in given and merged.get("arrivals") in ("closed", "burst"):
        del merged["arrivals"]


def _validated(data: dict[str, Any], place: str, given: dict[str, Any]) -> Profile:
    try:
        return Profile.model_validate({"load": {}, **data})
    except ValidationError as errors:
        raise UsageError(_one_line(errors.errors(include_url=False)[0], data, place, given)) from None


# --- one line per fault ----------------------------------------------------------------------------------------------

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
}
_BOUND = {
    "greater_than": (">", "gt"),
    "greater_than_equal": (">=", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("<=", "le"),
}


def _one_line(error: ErrorDetails, data: dict[str, Any], place: str, given: dict[str, Any]) -> str:
    where = _path(error["loc"], data)
    context = error.get("ctx", {})
    kind = error["type"]
    got = "" if "headers" in error["loc"] else f", got {_shown(error['input'])}"
    if kind == "profile":
        at = context["at"]
        where = ".".join(part for part in (where, at) if part)
        text = context["text"]
    elif kind == "missing":
        text = "is missing, add it"
    elif kind in _BOUND:
        sign, key = _BOUND[kind]
        text = f"must be {sign} {context[key]:g}{got}"
    elif kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        text = f"must be one of {choices}{got}{_did_you_mean(error['input'], choices.split(', '))}"
    else:
        text = f"must be {_EXPECTED[kind]}{got}" if kind in _EXPECTED else f"{error['msg']}{got}"
    from_options = place != COMMAND_LINE and _holds(given, where)
    return f"{COMMAND_LINE if from_options else place}: {where} {text}".replace("\n", " ")


def _path(loc: tuple[int | str, ...], data: Any) -> str:
    """Return `loc` as the reader wrote it: steps that normalisation put in (a list of one target) are left out."""
    path, node = "", data
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(part, int) and isinstance(node, list | tuple):
            path, node = f"{path}[{part}]", node[part]
        elif isinstance(part, str) and isinstance(node, dict) and (part in node or last):
            path, node = f"{path}.{part}" if path else part, node.get(part)
    return path


def _holds(given: Mapping[str, Any], where: str) -> bool:
    """Tell whether the key at `where` came from `given`; a list in `given` came whole."""
    node: Any = given
    for part in re.sub(r"\[\d+\]", "", where).split("."):
        if isinstance(node, list | tuple):
            return True
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _shown(value: object) -> str:
    """Return `value` short enough for one line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
