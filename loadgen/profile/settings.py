"""The settings of a profile about the measurement: limits, how runs are put together, telemetry, objectives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from loadgen.latency import OBJECTIVES
from loadgen.profile.base import Model, Positive, brief, did_you_mean, fault, http_parts

__all__ = ["OBJECTIVES", "CampaignSpec", "Limits", "Telemetry", "check_objectives"]

SHORTEST_INTERVAL_S = 0.02  # between samples; below it sampling disturbs what is sampled


class Limits(Model):
    """When to give up. Reaching one is an outcome of the request, never an error of the run."""

    connect_s: Positive = Field(default=10.0, description="Seconds until a connection is open.")
    first_token_s: Positive = Field(default=120.0, description="Seconds from sending to the first token.")
    between_tokens_s: Positive = Field(default=60.0, description="Seconds between two tokens.")
    total_s: Positive = Field(default=600.0, description="Seconds for the whole request.")
    drain_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="Seconds that requests in flight may take after the last arrival."
    )
    no_progress_s: Positive = Field(
        default=180.0, description="Seconds without a byte on any connection after which the run ends."
    )


class CampaignSpec(Model):
    """How several runs are put together; what one run does is in load and work."""

    order: Literal["randomised", "fixed"] = Field(
        default="randomised", description="Of the arms within a block of runs."
    )
    cooldown_s: Annotated[float, Field(ge=0)] = Field(default=0.0, description="Seconds between runs.")
    isolation: Literal["none", "unload", "process"] = Field(
        default="none", description="Before each run: unload the model, or start a fresh client process."
    )
    control: str | None = Field(default=None, description="This arm is run once more at the start and at the end.")
    until: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="Repeat until the interval is this narrow to either side, such as `2%` or `0.02`."
    )
    until_metric: Literal["both", "ttft_ms", "output_tokens_per_s"] = Field(
        default="both", description="The metrics whose intervals must be that narrow."
    )

    @classmethod
    def _completed(cls, data: Any) -> Any:
        until = data.get("until") if isinstance(data, dict) else None
        if not isinstance(until, str):
            return data
        number = until.strip().removesuffix("%")
        try:
            return {**data, "until": float(number) / (100 if number != until.strip() else 1)}
        except ValueError:
            fault(f"must be a share such as 2% or 0.02, got {brief(until)}", at="until")

    @model_validator(mode="after")
    def _consistent(self) -> CampaignSpec:
        if self.until is None and self.until_metric != "both":
            fault("has a meaning only beside until: remove it", "until_metric")
        return self


class Telemetry(Model):
    """What is sampled beside the runs: the host, GPUs, and the metrics of servers and exporters."""

    interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0.25, description="Seconds between samples; 0 takes none."
    )
    gpu: Literal["auto", "nvml", "amdgpu", "off"] = Field(default="auto", description="How GPUs are sampled.")
    exporters: tuple[str, ...] = Field(
        default=(), strict=False, description="URLs of dcgm-exporters or node exporters to sample too."
    )

    @field_validator("interval_s")
    @classmethod
    def _not_too_often(cls, interval_s: float) -> float:
        if 0 < interval_s < SHORTEST_INTERVAL_S:
            fault(f"must be 0 (off) or at least {SHORTEST_INTERVAL_S:g}, got {interval_s:g}")
        return interval_s

    @field_validator("exporters")
    @classmethod
    def _absolute(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = http_parts(url, ending=f", got {brief(url)}")
            if parts.username or parts.password:
                fault("must not hold credentials: exporters are asked without any")
        return urls


def check_objectives(objectives: dict[str, float]) -> None:
    """Raise the fault of an unknown objective, or of a bound that none can have."""
    for name, bound in objectives.items():
        if name not in OBJECTIVES:
            hint = did_you_mean(name, sorted(OBJECTIVES)) or ", write e.g. ttft_p99_ms or error_rate"
            fault(f"is not a known objective{hint}", at=name)
        if name == "error_rate" and not 0 <= bound <= 1:
            fault(f"must be a fraction from 0 to 1, got {bound:g}", at=name)
        if name != "error_rate" and bound <= 0:
            fault(f"must be > 0, got {bound:g}", at=name)
