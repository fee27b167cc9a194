"""The servers of a profile: where they are, as what they are addressed, and what each request carries."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from loadgen.profile.base import Model, Positive, brief, fault, http_parts

__all__ = ["TargetSpec"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110: a token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


class TargetSpec(Model):
    """One server to load. `options` go into the request body as they are."""

    url: str = Field(description="The server's root, such as `http://localhost:8000`.")
    name: str = Field(default="", description="Its name in reports; left out: host and port.")
    api: Literal["auto", "openai", "ollama", "lmstudio"] = Field(
        default="auto", description="The dialect of the requests; `auto` asks the server what it is."
    )
    model: str = Field(default="auto", description="The model; `auto` takes the first one listed.")
    path: str | None = Field(default=None, description="The request path, such as `/v1/completions`.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Sent in each request body as they are.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Sent with each request; never written to a file."
    )
    api_key_env: str | None = Field(default=None, description="The environment variable that holds the key.")
    tokenizer: str | None = Field(default=None, description="A directory that holds `tokenizer.json`.")
    force_length: bool = Field(
        default=True, description="Ask for exactly `output_tokens` where the server can be made to give them."
    )
    verify_tls: bool = Field(default=True, description="Verify the server's certificate.")
    ca_file: str | None = Field(default=None, description="Trust these certificates (PEM).")
    weight: Positive = Field(default=1.0, description="Share of the requests, relative to the other targets.")

    @field_validator("url")
    @classmethod
    def _absolute(cls, url: str) -> str:
        parts = http_parts(url, ending=f", got {brief(url)}")
        if parts.username or parts.password:
            fault("must not hold credentials: name an environment variable in api_key_env instead")
        return url.rstrip("/")

    @field_validator("path")
    @classmethod
    def _from_the_root(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            fault(f"must start with /, e.g. /v1/completions, got {brief(path)}")
        return path

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                fault("holds a name that HTTP does not allow: use letters, digits and hyphens")
            if not _HEADER_VALUE.fullmatch(value):
                fault("has a value that HTTP does not allow: write it in one line of Latin-1", at=name)
        return headers

    @field_validator("api_key_env")
    @classmethod
    def _a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            fault("must be the name of an environment variable that holds the key, not the key itself")
        return name

    @classmethod
    def _completed(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("url"), str):
            try:
                parts = urlsplit(data["url"])
                port = parts.port or (443 if parts.scheme == "https" else 80)
            except ValueError:
                return data  # the check of url has the better words
            return {**data, "name": f"{parts.hostname}:{port}"}
        return data
