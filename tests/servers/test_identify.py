"""Who answers? One set of probe answers per server, as its sources shape them."""

from __future__ import annotations

import json

import pytest

from loadgen.servers.identify import PROBES, Identity, identify
from loadgen.servers.reply import Reply


def ok(value, content_type="application/json"):
    return Reply(200, content_type, (value if isinstance(value, str) else json.dumps(value)).encode())


def models(*entries):
    return ok({"object": "list", "data": list(entries)})


MISSING = Reply(404, "application/json", b'{"detail":"Not Found"}')
FASTAPI = dict.fromkeys(PROBES, MISSING)
PLAIN = dict.fromkeys(PROBES, Reply(404, "text/plain", b"404 page not found"))
LMSTUDIO = dict.fromkeys(PROBES, ok({"error": "Unexpected endpoint or method. (GET /x). Returning 200 anyway"}))
NATIVE = {
    "models": [
        {"type": "llm", "key": "idle", "loaded_instances": [], "max_context_length": 8192},
        {"type": "llm", "key": "up", "loaded_instances": [{"id": "up", "config": {"context_length": 4096}}]},
        {"type": "embedding", "key": "embed", "loaded_instances": [], "max_context_length": 512},
    ]
}
V0 = [
    {"id": "idle", "object": "model", "type": "llm", "state": "not-loaded", "max_context_length": 8192},
    {"id": "up", "type": "vlm", "state": "loaded", "max_context_length": 8192, "loaded_context_length": 2048},
    {"id": "embed", "type": "embeddings", "state": "loaded"},
]

SERVERS = {
    "vllm": (
        FASTAPI
        | {
            "/version": ok({"version": "0.32.0"}),
            "/health": ok("", ""),
            "/v1/models": models(
                {"id": "m", "owned_by": "vllm", "max_model_len": 4096}, {"id": "lora", "owned_by": "vllm"}
            ),
        },
        Identity("vllm", "openai", "0.32.0", ["m", "lora"], {"m": 4096}, "vLLM 0.32.0"),
    ),
    "vllm behind a key": (
        FASTAPI
        | {
            "/version": ok({"version": "0.32.0"}),
            "/v1/models": Reply(401, "application/json", b'{"error":"Unauthorized"}'),
        },
        Identity("vllm", "openai", "0.32.0", [], {}, "vLLM 0.32.0"),
    ),
    "sglang": (
        FASTAPI
        | {
            "/v1/models": models({"id": "m", "owned_by": "sglang", "max_model_len": 32768}),
            "/server_info": ok({"version": "0.6.1", "internal_states": []}),
        },
        Identity("sglang", "openai", "0.6.1", ["m"], {"m": 32768}, "SGLang 0.6.1"),
    ),
    "sglang by its owner only": (
        FASTAPI | {"/v1/models": models({"id": "m", "owned_by": "sglang"})},
        Identity("sglang", "openai", None, ["m"], {}, "SGLang"),
    ),
    "llama.cpp": (
        PLAIN
        | {
            "/v1/models": models({"id": "m.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 131072}}),
            "/props": ok({"default_generation_settings": {"n_ctx": 2048}, "build_info": "b7000-abc"}),
            "/health": ok({"status": "ok"}),
        },
        Identity("llamacpp", "openai", "b7000-abc", ["m.gguf"], {"m.gguf": 2048}, "llama.cpp b7000-abc"),
    ),
    "llama_cpp.server": (
        FASTAPI | {"/v1/models": models({"id": "m", "object": "model", "owned_by": "me", "permissions": []})},
        Identity("llamacpp-python", "openai", None, ["m"], {}, "llama_cpp.server"),
    ),
    "transformers serve without a hub cache": (
        FASTAPI
        | {
            "/health": ok({"status": "ok"}),
            "/v1/models": Reply(500, "text/plain", b"Internal Server Error"),
        },
        Identity("transformers", "openai", None, [], {}, "transformers serve"),
    ),
    "ollama": (
        PLAIN
        | {
            "/api/version": ok({"version": "0.33.0"}),
            "/": ok("Ollama is running", "text/plain"),
            "/v1/models": models({"id": "m:1b", "object": "model", "owned_by": "library"}),
        },
        Identity("ollama", "ollama", "0.33.0", ["m:1b"], {}, "Ollama 0.33.0"),
    ),
    "ollama, text only": (
        PLAIN | {"/": ok("Ollama is running", "text/plain")},
        Identity("ollama", "ollama", None, [], {}, "Ollama"),
    ),
    "lm studio": (
        LMSTUDIO | {"/api/v1/models": ok(NATIVE), "/api/v0/models": models(*V0), "/v1/models": models({"id": "idle"})},
        Identity("lmstudio", "lmstudio", None, ["up", "idle"], {"up": 4096, "idle": 8192}, "LM Studio"),
    ),
    "lm studio before 0.4": (
        LMSTUDIO | {"/api/v0/models": models(*V0), "/v1/models": models({"id": "idle"}, {"id": "up"})},
        Identity("lmstudio", "openai", None, ["up", "idle"], {"up": 2048, "idle": 8192}, "LM Studio"),
    ),
    "somebody else": (
        PLAIN | {"/v1/models": models({"id": "gpt", "object": "model", "owned_by": "org"})},
        Identity("openai", "openai", None, ["gpt"], {}, "OpenAI-compatible server"),
    ),
}


@pytest.mark.parametrize(("answers", "expected"), SERVERS.values(), ids=SERVERS)
def test_each_server_is_known_by_the_shape_of_its_answers(answers, expected):
    assert identify(answers) == expected


NOBODY = [{}, PLAIN, FASTAPI, LMSTUDIO, dict.fromkeys(PROBES, ok("<html>", "text/html"))]
NOBODY += [{"/": Reply(404, "text/plain", b"Ollama is running")}]


@pytest.mark.parametrize("answers", NOBODY)
def test_nobody_known_is_none_whatever_the_status(answers):
    assert identify(answers) is None


@pytest.mark.parametrize("odd", [[], 3, None, "x", {"data": 3, "models": 3}, {"data": [3], "models": [None]}])
def test_odd_json_never_raises(odd):
    found = identify(dict.fromkeys(PROBES, ok(json.dumps(odd))))
    assert found is None or found.kind == "openai"
