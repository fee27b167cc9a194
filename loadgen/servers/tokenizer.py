"""Counting tokens with a server's tokenizer, where it has a route for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

from loadgen.servers.control import NoAnswer, control_of
from loadgen.servers.endpoint import Endpoint
from loadgen.servers.reply import Reply

__all__ = ["LENDS_TOKENIZER", "TOKENIZE_AT_ONCE", "token_counter"]

LENDS_TOKENIZER = frozenset({"vllm", "llamacpp", "llamacpp-python"})
TOKENIZE_AT_ONCE = 16  # over as many connections
TOKENIZE_TIMEOUT_S = 60.0  # a text may be as long as a model's context
_COUNTS: dict[tuple[str, str, str], dict[str, int]] = {}  # tokens of texts, by server and model


@asynccontextmanager
async def token_counter(endpoint: Endpoint) -> AsyncIterator[Callable[[Sequence[str]], list[int]]]:
    """Yield a function from texts to their numbers of tokens, by the server's own tokenizer.

    A text is counted once in the life of this process: its count does not change while the model is served.
    The function blocks, so call it from another thread than that of the running loop. It raises NoAnswer where the
    server has no such route after all.
    """
    loop = asyncio.get_running_loop()
    kind, model = endpoint.target.kind, endpoint.target.model
    counts = _COUNTS.setdefault((endpoint.route(), kind, model), {})
    async with control_of(endpoint, timeout_s=TOKENIZE_TIMEOUT_S) as control:

        async def ask_each(texts: Iterator[str]) -> None:
            for text in texts:
                counts[text] = _count(await control.post(*_tokenize_request(kind, model, text)))

        async def count_all(texts: Sequence[str]) -> list[int]:
            missing = [text for text in dict.fromkeys(texts) if text not in counts]
            await ask_each(iter(missing[:1]))  # alone, because one question finds out that there is no such route
            rest = iter(missing[1:])
            await asyncio.gather(*(ask_each(rest) for _ in range(TOKENIZE_AT_ONCE)))
            return [counts[text] for text in texts]

        yield lambda texts: asyncio.run_coroutine_threadsafe(count_all(texts), loop).result()


def _tokenize_request(kind: str, model: str, text: str) -> tuple[str, dict[str, str]]:
    """The path and the body of the request for the tokens of `text`."""
    if kind == "llamacpp":
        return "/tokenize", {"content": text}
    if kind == "llamacpp-python":
        return "/extras/tokenize", {"model": model, "input": text}
    return "/tokenize", {"model": model, "prompt": text}


def _count(reply: Reply) -> int:
    """The number of tokens in the answer. Raises NoAnswer where it lists none."""
    answer = reply.json_or_none() if reply.ok else None
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list):
        raise NoAnswer(f"HTTP {reply.status}, and no list of tokens")
    return len(tokens)
