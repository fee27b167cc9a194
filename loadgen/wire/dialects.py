"""Which module speaks which API."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from loadgen.wire import Ask, Decoded, Response, Target, lmstudio, ollama, openai

__all__ = ["DIALECTS", "Decode", "Dialect", "dialect"]


class Decode(Protocol):
    def __call__(self, response: Response, *, keep_text: bool = False) -> Decoded: ...


class Dialect(NamedTuple):
    request_body: Callable[[Ask, Target], bytes]
    decode: Decode
    default_path: str


DIALECTS = {
    "openai": Dialect(openai.request_body, openai.decode, openai.DEFAULT_PATH),
    "ollama": Dialect(ollama.request_body, ollama.decode, ollama.DEFAULT_PATH),
    "lmstudio": Dialect(lmstudio.request_body, lmstudio.decode, lmstudio.DEFAULT_PATH),
}


def dialect(api: str, path: str = "") -> Dialect:
    """The dialect of `api` on `path`: Ollama and LM Studio serve the OpenAI shape too, under /v1 and /api/v0."""
    return DIALECTS["openai" if path.startswith(("/v1/", "/api/v0/")) else api]
