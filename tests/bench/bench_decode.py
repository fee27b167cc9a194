"""What decoding an answer costs, per event, beside plain JSON parsing of the same events in the same run.

Run: python -m tests.bench.bench_decode, or python tests/bench/bench_decode.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import orjson

from loadgen.wire import Response, lmstudio, ollama, openai

ROUNDS = 15
CHAT = '{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1790000000,'
CHAT += '"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":%s,"logprobs":null,%s}]}'


def vllm(tokens: int, extra: str = '"token_ids":null') -> list[str]:
    content = [CHAT % (f'{{"content":" tok{at}"}}', f'"finish_reason":null,{extra}') for at in range(tokens)]
    role = CHAT % ('{"role":"assistant","content":""}', '"finish_reason":null')
    finish = CHAT % ('{"content":""}', '"finish_reason":"length","stop_reason":null')
    usage = '{"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1790000000,'
    usage += f'"model":"m","choices":[],"usage":{{"prompt_tokens":9,"total_tokens":99,"completion_tokens":{tokens}}}}}'
    return [role, *content, finish, usage]


def ollama_chat(tokens: int) -> list[str]:
    line = '{"model":"llama3.1:8b","created_at":"2026-11-21T10:00:%02d.%09dZ",'
    line += '"message":{"role":"assistant","content":"%s"},"done":%s}'
    last = 'true,"done_reason":"length","total_duration":900000000,"load_duration":20000000,"prompt_eval_count":26,'
    last += f'"prompt_eval_duration":130000000,"eval_count":{tokens},"eval_duration":700000000'
    lines = [line % (at // 50 % 60, at * 7919 % 10**9, f" tok{at}", "false") for at in range(tokens)]
    return [*lines, line % (59, 1, "", last)]


def lmstudio_chat(tokens: int) -> list[str]:
    deltas = [f'{{"type":"message.delta","content":" tok{at}"}}' for at in range(tokens)]
    stats = f'{{"input_tokens":9,"total_output_tokens":{tokens},"time_to_first_token_seconds":0.1}}'
    end = f'{{"type":"chat.end","result":{{"model_instance_id":"m","output":[],"stats":{stats}}}}}'
    return ['{"type":"chat.start","model_instance_id":"m"}', '{"type":"message.start"}', *deltas, end]


def sse(messages: list[str], *, named: bool = False, done: bool = True) -> bytes:
    names = [f"event: {orjson.loads(message)['type']}\n" if named else "" for message in messages]
    blocks = [f"{name}data: {message}\n\n" for name, message in zip(names, messages, strict=True)]
    return ("".join(blocks) + ("data: [DONE]\n\n" if done else "")).encode()


def ndjson(messages: list[str]) -> bytes:
    return "".join(message + "\n" for message in messages).encode()


def response(body: bytes, content_type: str, reads: int) -> Response:
    """An answer in as many reads as it has events, or in one."""
    ends = np.linspace(len(body) / reads, len(body), reads).astype(np.int64)
    return Response(200, {"content-type": content_type}, body, ends, complete=True)


def best_us(call: Callable[[], object]) -> float:
    """Best of some rounds, µs: the machine is shared, and interference only adds."""
    repeat, best = 1, float("inf")
    while best * repeat < 2e-3 and repeat < 10_000:
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        best = (time.perf_counter() - start) / repeat
        repeat *= 4
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        best = min(best, (time.perf_counter() - start) / repeat)
    return best * 1e6


def main() -> None:
    stream, lines = "text/event-stream", "application/x-ndjson"
    escaped = [message.replace(" tok7", " \\n\\u00e9") for message in vllm(100)]
    ids = [message.replace('"token_ids":null', f'"token_ids":[{at}]') for at, message in enumerate(vllm(100))]
    cases = {
        "vllm chat, 100 tokens": (vllm(100), openai.decode, response(sse(vllm(100)), stream, 102)),
        "vllm chat, escapes": (escaped, openai.decode, response(sse(escaped), stream, 102)),
        "vllm chat, token ids": (ids, openai.decode, response(sse(ids), stream, 102)),
        "vllm chat, 1000 tokens": (vllm(1000), openai.decode, response(sse(vllm(1000)), stream, 1002)),
        "ollama chat, 100 tokens": (
            ollama_chat(100),
            ollama.decode,
            response(ndjson(ollama_chat(100)), lines, 101),
        ),
        "lmstudio chat, 100 tokens": (
            lmstudio_chat(100),
            lmstudio.decode,
            response(sse(lmstudio_chat(100), named=True, done=False), stream, 103),
        ),
        "vllm chat, 1 token": (vllm(1), openai.decode, response(sse(vllm(1)), stream, 1)),
        "ollama chat, 1 token": (ollama_chat(1), ollama.decode, response(ndjson(ollama_chat(1)), lines, 1)),
        "lmstudio chat, 1 token": (
            lmstudio_chat(1),
            lmstudio.decode,
            response(sse(lmstudio_chat(1), named=True, done=False), stream, 1),
        ),
    }
    print(f"{'µs an event (whole answer)':28} {'decode':>16} {'orjson.loads':>16} {'json.loads':>16}")
    for name, (messages, decode, answer) in cases.items():
        raw = [message.encode() for message in messages]
        figures = [
            best_us(lambda: decode(answer)),  # noqa: B023
            best_us(lambda: [orjson.loads(one) for one in raw]),  # noqa: B023
            best_us(lambda: [json.loads(one) for one in raw]),  # noqa: B023
        ]
        print(f"{name:28} " + " ".join(f"{us / len(raw):7.3f} ({us:6.1f})" for us in figures))


if __name__ == "__main__":
    main()
