"""What each request of a profile asks: lengths, prefixes, datasets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from loadgen.profile.base import MOST_TOKENS, Model, Positive, Tokens, brief, fault

__all__ = ["DEFAULT_PROMPT_TOKENS", "Dist", "Spread", "Uniform", "Work"]


class Uniform(Model):
    """Every whole number from low to high, both included."""

    low: Tokens = Field(description="The shortest length.")
    high: Tokens = Field(description="The longest length.")

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.high < self.low:
            fault(f"must be at least low ({self.low}), got {self.high}", at="high")
        return self


class Spread(Model):
    """Mean and standard deviation before rounding, and limits that draws are clamped to."""

    mean: Positive = Field(description="Mean before rounding, in tokens.")
    sd: Annotated[float, Field(ge=0)] = Field(description="Standard deviation before rounding, in tokens.")
    min: Tokens = Field(default=1, description="Shorter draws become this long.")
    max: Tokens = Field(default=MOST_TOKENS, description="Longer draws become this long.")

    @model_validator(mode="after")
    def _ordered(self) -> Spread:
        if self.max < self.min:
            fault(f"must be at least min ({self.min}), got {self.max}", at="max")
        if not self.min <= self.mean <= self.max:
            fault(f"must lie between min ({self.min}) and max ({self.max}), got {self.mean:g}", at="mean")
        return self


DISTS = ("fixed", "uniform", "normal", "lognormal")


class Dist(Model):
    """A distribution of lengths in tokens: exactly one field is set. A bare number in YAML means `fixed`.

    lognormal takes the mean and standard deviation of the lengths themselves, not of their logarithms.
    """

    fixed: Tokens | None = Field(default=None, description="Every length is this; a bare number means the same.")
    uniform: Uniform | None = Field(default=None, description="Whole numbers from `low` to `high`, both included.")
    normal: Spread | None = Field(default=None, description="Normal, rounded and clamped.")
    lognormal: Spread | None = Field(
        default=None, description="Lognormal; mean and sd are those of the lengths, not of their logarithms."
    )

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, int) and not isinstance(data, bool):
            return {"fixed": data}
        if not isinstance(data, dict | Dist):
            fault(f"must be a number of tokens or one of {', '.join(DISTS)}, got {brief(data)}")
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> Dist:
        given = [name for name in DISTS if getattr(self, name) is not None]
        if len(given) != 1:
            fault(f"needs exactly one of {', '.join(DISTS)}, got {' and '.join(given) or 'none'}")
        return self

    @property
    def most(self) -> int:
        """The longest length that can be drawn, in tokens."""
        if self.fixed is not None:
            return self.fixed
        if self.uniform is not None:
            return self.uniform.high
        spread = self.normal or self.lognormal
        assert spread is not None
        return spread.max


DEFAULT_PROMPT_TOKENS = 512
DEFAULT_OUTPUT_TOKENS = 128


class Work(Model):
    """What each request asks.

    prompt_tokens: of the user's prompt, prefixes included; `system` and the server's template come on top.
    output_tokens: null asks for the length that the dataset states, and without a dataset leaves it to the server.
    """

    prompt_tokens: Dist | None = Field(
        default=None, description="Length of the prompts, prefixes included; 512 unless there is a dataset."
    )
    output_tokens: Dist | None = Field(
        default=None,
        description="Length of the answers; 128 unless there is a dataset (256 with agents). "
        "`null` leaves it to the dataset or the server.",
    )
    cache: Literal["unique", "shared", "none"] = Field(default="unique", description="What prompts have in common.")
    shared_prefix_tokens: Tokens | None = Field(
        default=None, description="Length of the common beginning; with `cache: shared` alone."
    )
    dataset: str | None = Field(default=None, description="Prompts from this JSONL or ShareGPT file.")
    dataset_format: Literal["auto", "openai", "prompt", "sharegpt"] = Field(
        default="auto", description="The form of the dataset's lines."
    )
    system: str | None = Field(default=None, description="A system message before each prompt.")
    order: Literal["shuffle", "sequential"] = Field(default="shuffle", description="In which order a dataset is read.")

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
            fault("has no meaning beside dataset, whose prompts have their own length: remove it", "prompt_tokens")
        if self.dataset is None:
            for name in ("dataset_format", "order"):
                if name in self.model_fields_set and getattr(self, name) not in ("auto", "shuffle"):
                    fault("has a meaning only beside dataset: remove it", name)
        self._check_shared()
        return self

    def _check_shared(self) -> None:
        if (self.cache == "shared") != (self.shared_prefix_tokens is not None):
            if self.cache == "shared":
                fault("needs shared_prefix_tokens when cache is shared")
            text = f"has no meaning when cache is {self.cache}: remove it, or set cache to shared"
            fault(text, "shared_prefix_tokens")
        longest = self.prompt_tokens.most if self.prompt_tokens else None
        if self.shared_prefix_tokens and longest and self.shared_prefix_tokens >= longest:
            text = f"must be smaller than the longest prompt ({longest}), got {self.shared_prefix_tokens}"
            fault(text, "shared_prefix_tokens")
