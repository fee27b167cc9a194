"""How requests arrive: a closed loop, an open one, a burst, or stages of the first two.

`Load` is the union of the four. Which kind is meant follows from `arrivals` and `stages`; where `arrivals` is left out
it follows from the other keys. A key that only another kind has is refused with the reason, unless it is null, as
`resolved` writes it: a manifest has one form for all kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, TypeAdapter, model_validator

from loadgen.profile.base import Count, Model, Positive, brief, fault, not_one_of, unknown_key

__all__ = ["KINDS", "LOAD", "Burst", "Closed", "Load", "Mmpp", "Open", "Stage", "Staged", "resolved"]

MOST_SCHEDULED = 100_000_000  # offsets are drawn before the run, 8 bytes each: 0.8 GB
LEAST_HELD = 0.1  # requests in a burst and a calm of an mmpp: with fewer, nothing of them shows in the arrivals
ARRIVALS = ["closed", "poisson", "constant", "gamma", "mmpp", "burst"]


class Stage(Model):
    """A part of a load. Its rate or concurrency moves linearly to `ramp_to` by the stage's end, if that is given."""

    duration_s: Positive | None = Field(default=None, description="Seconds; this or `requests`.")
    requests: Count | None = Field(default=None, description="Open loop: this many arrivals.")
    rate_per_s: Positive | None = Field(default=None, description="Open loop: requests per second at the start.")
    concurrency: Count | None = Field(default=None, description="Closed loop: requests in flight at the start.")
    ramp_to: Positive | None = Field(default=None, description="The rate or concurrency at the stage's end.")

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if (self.duration_s is None) == (self.requests is None):
            fault("needs exactly one of duration_s and requests")
        if (self.rate_per_s is None) == (self.concurrency is None):
            fault("needs exactly one of rate_per_s and concurrency")
        if self.concurrency is not None:
            if self.duration_s is None:
                fault("needs duration_s: the stages of a closed loop are set by time, not by requests")
            if self.ramp_to is not None and self.ramp_to != int(self.ramp_to):
                fault(f"must be a whole number of requests in flight, got {self.ramp_to:g}", at="ramp_to")
        return self

    @property
    def mean_rate_per_s(self) -> float:
        """Mean of the rate over the stage; open loops only."""
        assert self.rate_per_s is not None
        return (self.rate_per_s + (self.ramp_to or self.rate_per_s)) / 2


class Mmpp(Model):
    """Bursts and calms that take turns (MMPP-2): arrivals are Poisson in each, its length is exponential."""

    burst_s: Positive = Field(description="Mean length of a burst, in seconds.")
    calm_s: Positive = Field(description="Mean length of a calm, in seconds.")
    calm_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Rate of a calm over that of a burst; 0: on and off."
    )

    @property
    def burst_rate(self) -> float:
        """The rate within a burst over the mean rate."""
        return (self.burst_s + self.calm_s) / (self.burst_s + self.calm_share * self.calm_s)

    def dispersion(self, rate_per_s: float) -> float:
        """Variance / mean of the counts in long intervals, at a mean rate of `rate_per_s`.

        See docs/methodology.md#arrival-processes.
        """
        burst = self.burst_rate * rate_per_s
        calm = self.calm_share * burst
        leave_burst, leave_calm = 1 / self.burst_s, 1 / self.calm_s
        weight = (leave_burst + leave_calm) ** 2 * (burst * leave_calm + calm * leave_burst)
        return 1 + 2 * (burst - calm) ** 2 * leave_burst * leave_calm / weight


class _Kind(Model):
    """What every kind of load has. Warm-up comes on top of requests and durations, at the load's first rate."""

    warmup_requests: Annotated[int, Field(ge=0)] = Field(default=0, description="Sent first, not measured.")
    warmup_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Seconds at the start that are not measured; this or `warmup_requests`."
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> _Kind:
        if self.warmup_requests and self.warmup_s:
            fault("and warmup_s are both given: keep one", "warmup_requests")
        return self

    @property
    def is_open(self) -> bool:
        """Arrivals are set by the schedule, not by completions."""
        return True

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The stages of an open loop, or the one stage that a rate without stages amounts to; a burst has none."""
        return ()

    @property
    def most_requests(self) -> int | None:
        """Requests after which the load ends, warm-up not counted; None where time or the stages end it."""
        return None

    @property
    def length_s(self) -> float | None:
        """Seconds of the load, warm-up not counted; None where requests alone end it."""
        return None

    @property
    def most_in_flight(self) -> int | None:
        """The most requests that may be in flight at once; None for an open loop without a cap."""
        return None


class Closed(_Kind):
    """A closed loop: each answer makes room for the next request. It ends at whichever bound comes first."""

    arrivals: Literal["closed"] = Field(description="Left out: closed where there is a `concurrency`.")
    concurrency: Count = Field(description="Requests in flight.")
    requests: Count | None = Field(default=None, description="Stop after this many.")
    duration_s: Positive | None = Field(default=None, description="Stop after this many seconds.")

    @model_validator(mode="after")
    def _bounded(self) -> Closed:
        _check_bounded(self.requests, self.duration_s)
        return self

    @property
    def is_open(self) -> bool:
        return False

    @property
    def most_requests(self) -> int | None:
        return self.requests

    @property
    def length_s(self) -> float | None:
        return self.duration_s

    @property
    def most_in_flight(self) -> int:
        return self.concurrency


class Open(_Kind):
    """An open loop: the schedule sets the arrivals. It ends at whichever bound comes first."""

    arrivals: Literal["poisson", "constant", "gamma", "mmpp"] = Field(
        description="Left out: gamma with `burstiness`, mmpp with `mmpp`, else poisson."
    )
    rate_per_s: Positive = Field(description="Requests per second; with `mmpp` the mean over bursts and calms.")
    burstiness: Positive = Field(
        default=0.25, description="Gamma only: its shape b; the CV of the gaps is 1/sqrt(b), and 0.25 gives CV 2."
    )
    mmpp: Mmpp | None = Field(default=None, description="Mmpp only: bursts and calms that take turns.")
    requests: Count | None = Field(default=None, description="Stop after this many.")
    duration_s: Positive | None = Field(default=None, description="Stop after this many seconds.")
    max_in_flight: Count | None = Field(
        default=None, description="A cap on requests in flight; the wait counts in what the user feels."
    )

    @model_validator(mode="after")
    def _sound(self) -> Open:
        if self.mmpp is not None:
            held = self.rate_per_s * (self.mmpp.burst_s + self.mmpp.calm_s)
            if held < LEAST_HELD:
                fault(f"has bursts too short to tell from poisson: {held:.2g} requests from one to the next", "mmpp")
        _check_bounded(self.requests, self.duration_s)
        # `parts` shows the duration where there are both bounds; here the smaller of the two counts.
        most = math.inf if self.requests is None else self.requests
        _check_size(self, min(_arrivals(self.parts), most))
        return self

    @property
    def parts(self) -> tuple[Stage, ...]:
        """With both bounds the stage has the duration: `requests` is a cap on the whole."""
        requests = self.requests if self.duration_s is None else None
        return (Stage(rate_per_s=self.rate_per_s, duration_s=self.duration_s, requests=requests),)

    @property
    def most_requests(self) -> int | None:
        return self.requests

    @property
    def length_s(self) -> float | None:
        return self.duration_s

    @property
    def most_in_flight(self) -> int | None:
        return self.max_in_flight


class Burst(_Kind):
    """All requests at one instant."""

    arrivals: Literal["burst"] = Field(description="Must be given.")
    requests: Count = Field(description="This many are sent at once.")
    max_in_flight: Count | None = Field(default=None, description="A cap on requests in flight; the wait counts.")

    @model_validator(mode="after")
    def _without_warmup(self) -> Burst:
        for name in ("warmup_requests", "warmup_s"):
            if getattr(self, name):
                fault("has no meaning when arrivals is burst: there is no steady part to reach, remove it", name)
        return self

    @property
    def most_requests(self) -> int:
        return self.requests

    @property
    def most_in_flight(self) -> int | None:
        return self.max_in_flight


class Staged(_Kind):
    """Stages one after the other, all of a closed loop or all of an open one; each has its own bound."""

    arrivals: Literal["closed", "poisson", "constant", "gamma"] = Field(
        description="Left out: closed where the first stage has a concurrency, else gamma or poisson."
    )
    burstiness: Positive = Field(default=0.25, description="Gamma only: the shape of the gaps.")
    max_in_flight: Count | None = Field(default=None, description="Open loops only: a cap on requests in flight.")
    stages: tuple[Stage, ...] = Field(strict=False, min_length=1, description="The stages, in order.")

    @model_validator(mode="after")
    def _alike(self) -> Staged:
        wanted = "rate_per_s" if self.is_open else "concurrency"
        for index, stage in enumerate(self.stages):
            if getattr(stage, wanted) is None:
                fault(f"needs {wanted}: arrivals is {self.arrivals}", f"stages[{index}]")
        if self.is_open:
            _check_size(self, _arrivals(self.stages))
        elif self.warmup_requests:
            fault("cannot go with a closed loop's stages, which are set by time: use warmup_s", "warmup_requests")
        return self

    @property
    def is_open(self) -> bool:
        return self.arrivals != "closed"

    @property
    def parts(self) -> tuple[Stage, ...]:
        return self.stages

    @property
    def length_s(self) -> float | None:
        lengths = [stage.duration_s for stage in self.stages]
        return None if None in lengths else sum(length or 0.0 for length in lengths)

    @property
    def most_in_flight(self) -> int | None:
        if self.is_open:
            return self.max_in_flight
        return max(max(stage.concurrency or 0, int(stage.ramp_to or 0)) for stage in self.stages)


def _check_bounded(requests: int | None, duration_s: float | None) -> None:
    if requests is None and duration_s is None:
        fault("needs requests or duration_s, else it would never end")


def _arrivals(parts: Iterable[Stage]) -> float:
    """Arrivals of an open loop's stages, on average."""
    return sum(part.requests or part.mean_rate_per_s * (part.duration_s or 0.0) for part in parts)


def _check_size(load: Open | Staged, arrivals: float) -> None:
    expected = arrivals + load.warmup_requests + (load.parts[0].rate_per_s or 0.0) * load.warmup_s
    if expected > MOST_SCHEDULED:
        most = f"{MOST_SCHEDULED:.0e}"
        fault(f"would schedule about {expected:.3g} requests, more than {most}: lower the rate or the duration")


# --- which of the four -----------------------------------------------------------------------------------------------

KINDS: dict[str, type[_Kind]] = {"closed": Closed, "open": Open, "burst": Burst, "staged": Staged}
# In the order of a manifest.
KEYS = (
    *("arrivals", "concurrency", "rate_per_s", "burstiness", "mmpp", "requests", "duration_s"),
    *("warmup_requests", "warmup_s", "max_in_flight", "stages"),
)
NOTHING: tuple[object, ...] = (None, [], ())  # what `resolved` writes for a key that a kind does not have
NEEDED = {
    "closed": ("concurrency", "needs concurrency when arrivals is closed"),
    "poisson": ("rate_per_s", "needs rate_per_s when arrivals is poisson"),
    "constant": ("rate_per_s", "needs rate_per_s when arrivals is constant"),
    "gamma": ("rate_per_s", "needs rate_per_s when arrivals is gamma"),
    "mmpp": ("rate_per_s", "needs rate_per_s when arrivals is mmpp"),
    "burst": ("requests", "needs requests when arrivals is burst: that many are sent at once"),
}


def _tag(data: Any) -> str:
    """The name in KINDS of a load, or of the completed mapping of one."""
    if isinstance(data, _Kind):
        return next(name for name, kind in KINDS.items() if isinstance(data, kind))
    arrivals = data["arrivals"]
    if arrivals != "mmpp" and data.get("stages") not in NOTHING:
        return "burst" if arrivals == "burst" else "staged"
    return arrivals if arrivals in ("closed", "burst") else "open"


def _completed(data: Any) -> Any:
    """The mapping of a load with its arrivals, and with the keys of its kind alone."""
    if isinstance(data, _Kind):
        return data
    if not isinstance(data, dict):
        fault(f"must be a mapping, got {brief(data)}")
    for key in data:
        if key not in KEYS:
            unknown_key(key, KEYS)
    arrivals = data.get("arrivals")
    if arrivals is None:
        arrivals = _arrivals_of(data)
    elif arrivals not in ARRIVALS:
        fault(not_one_of(arrivals, ARRIVALS), "arrivals")
    data = {**data, "arrivals": arrivals}
    keys = _keys_of(data)
    for key in KEYS:
        if key not in keys and data.get(key) not in NOTHING:
            fault(_why_not(key, arrivals), key)
    if "stages" not in keys:
        key, text = NEEDED[arrivals]
        if data.get(key) is None:
            fault(text)
        if arrivals == "mmpp" and data.get("mmpp") is None:
            fault("needs mmpp: {burst_s: ..., calm_s: ...} when arrivals is mmpp")
    return {key: value for key, value in data.items() if key in keys}


def _arrivals_of(data: dict[str, JsonValue]) -> str:
    """The arrivals of a mapping without any."""
    stages = data.get("stages")
    first = stages[0] if isinstance(stages, list | tuple) and stages and isinstance(stages[0], dict) else {}
    if data.get("rate_per_s") is not None or first.get("rate_per_s") is not None:
        if data.get("concurrency") is not None:
            fault("has both concurrency and rate_per_s: keep one (max_in_flight is the cap of an open loop)")
        unevenly = (name for name, key in (("gamma", "burstiness"), ("mmpp", "mmpp")) if data.get(key) is not None)
        return next(unevenly, "poisson")
    if data.get("concurrency") is not None or first.get("concurrency") is not None:
        return "closed"
    fault("needs concurrency (a closed loop) or rate_per_s (an open loop)")


def _keys_of(data: dict[str, JsonValue]) -> set[str]:
    """The keys that have a meaning beside the arrivals and stages of `data`."""
    only = {"burstiness": data["arrivals"] == "gamma", "mmpp": data["arrivals"] == "mmpp"}
    only["max_in_flight"] = data["arrivals"] != "closed"
    return {key for key in KINDS[_tag(data)].model_fields if only.get(key, True)}


def _why_not(key: str, arrivals: str) -> str:
    """Why `key` has no meaning beside the arrivals, and the cure."""
    if key in ("burstiness", "mmpp"):
        needed = "gamma" if key == "burstiness" else "mmpp"
        return f"has a meaning only when arrivals is {needed}: remove it, or set arrivals to {needed}"
    if key == "max_in_flight":
        return "has no meaning when arrivals is closed: concurrency is its cap, remove it"
    if key == "rate_per_s" and arrivals == "closed":
        return "has no meaning when arrivals is closed: remove it, or set arrivals to poisson"
    if key == "concurrency" and arrivals != "closed":
        return f"has no meaning when arrivals is {arrivals}: use max_in_flight to cap it"
    if key == "stages":
        if arrivals == "burst":
            return "have no meaning when arrivals is burst: remove them"
        return "cannot go with arrivals mmpp, whose bursts have one mean rate: remove them"
    if arrivals == "burst":
        return "has no meaning when arrivals is burst: all requests are sent at once, remove it"
    return "has no meaning beside stages: each stage has its own, remove it"


Load = Annotated[
    Annotated[Closed, Tag("closed")]
    | Annotated[Open, Tag("open")]
    | Annotated[Burst, Tag("burst")]
    | Annotated[Staged, Tag("staged")],
    Discriminator(_tag),
    BeforeValidator(_completed),
]
LOAD: TypeAdapter[Closed | Open | Burst | Staged] = TypeAdapter(Load)


def resolved(load: Closed | Open | Burst | Staged) -> dict[str, JsonValue]:
    """The load as a manifest has it, in plain JSON types: the keys of all kinds, null where its own has none.

    `burstiness` and `mmpp` are there only where they mean something.
    """
    plain = load.model_dump(mode="json")
    gone = {"burstiness": load.arrivals != "gamma", "mmpp": load.arrivals != "mmpp"}
    return {key: plain.get(key, [] if key == "stages" else None) for key in KEYS if not gone.get(key)}
