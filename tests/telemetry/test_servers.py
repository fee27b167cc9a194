"""Servers and exporters over real sockets: what they tell, and what happens when they tell it badly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from loadgen.servers.endpoint import Endpoint
from loadgen.telemetry import Absent, Missed
from loadgen.telemetry.servers import open_exporter, open_server
from loadgen.wire import Target

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return a function (routes): serve their answers, on a free port of the loopback; return the URL."""
    runners = []

    async def start(routes: dict[str, Callable[[], web.Response]]) -> str:
        async def handle(request: web.Request) -> web.Response:
            answer = routes.get(request.path)
            return answer() if answer is not None else web.Response(status=404)

        server = web.Server(handle)
        runner = web.ServerRunner(server)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


def endpoint(url: str, kind: str) -> Endpoint:
    api = {"ollama": "ollama", "lmstudio": "lmstudio"}.get(kind, "openai")
    return Endpoint("a", url, Target(api=api, kind=kind, model="m", path="/x"), label=kind)


def text(body: str, content_type: str = "text/plain", status: int = 200) -> Callable[[], web.Response]:
    return lambda: web.Response(text=body, content_type=content_type, status=status)


def told(values: object) -> dict[tuple[str, str], float]:
    return {(v.name, v.labels): v.value for v in values if v.name != "scrape_duration_seconds"}  # type: ignore[attr-defined]


async def test_metrics_are_told_with_the_endpoints_name_and_how_long_it_took(serve: Serve):
    url = await serve({"/metrics": text('# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{e="0"} 2')})
    source = await open_server(endpoint(url, "vllm"))
    look = await source.read()
    assert told(look.values) == {("vllm:num_requests_running", '{"e": "0", "endpoint": "a"}'): 2.0}
    assert [v.value > 0 for v in look.values if v.name == "scrape_duration_seconds"] == [True]
    assert source.facts == {"endpoint": "a", "url": f"{url}/metrics"}
    assert source.at_most_every_s == 0.0
    await source.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (text("<html>hello</html>", "text/html"), "a web page, not metrics"),
        (text("<html>hello</html>"), "it is not Prometheus text"),
        (text("", status=404), "HTTP 404"),
        (text("# nothing\n"), "no metric in it"),
    ],
)
async def test_server_that_tells_no_metrics_is_absent_with_one_line(
    serve: Serve, answer: Callable[[], web.Response], reason: str
):
    url = await serve({"/metrics": answer})
    with pytest.raises(Absent) as absent:
        await open_server(endpoint(url, "vllm"))
    assert str(absent.value) == f"{url}/metrics: {reason}"


async def test_llama_server_without_metrics_tells_its_slots(serve: Serve):
    slots = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}, {"id": 2, "is_processing": True}]
    url = await serve({"/slots": lambda: web.json_response(slots)})
    source = await open_server(endpoint(url, "llamacpp"))
    assert told((await source.read()).values) == {
        ("llamacpp:requests_processing", '{"endpoint": "a"}'): 2.0,
        ("llamacpp:slots", '{"endpoint": "a"}'): 3.0,
    }
    await source.close()


async def test_llama_server_that_tells_nothing_is_absent_with_the_cure(serve: Serve):
    with pytest.raises(Absent, match=r"/metrics: HTTP 404; .*/slots: HTTP 404 \(start llama-server with --metrics\)"):
        await open_server(endpoint(await serve({}), "llamacpp"))


async def test_ollama_tells_what_is_loaded_and_how_much_of_it_on_the_gpu(serve: Serve):
    models = {"models": [{"name": "gemma3:latest", "size": 6e9, "size_vram": 4e9, "context_length": 4096}]}
    url = await serve({"/api/ps": lambda: web.json_response(models)})
    source = await open_server(endpoint(url, "ollama"))
    model = '{"endpoint": "a", "model": "gemma3:latest"}'
    assert told((await source.read()).values) == {
        ("ollama:models_loaded", '{"endpoint": "a"}'): 1.0,
        ("ollama:model_size_bytes", model): 6e9,
        ("ollama:model_vram_bytes", model): 4e9,
        ("ollama:model_context_tokens", model): 4096.0,
    }
    assert source.at_most_every_s == 1.0  # such lists were not made to be asked for four times a second
    await source.close()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (
            "/api/v1/models",
            {"models": [{"key": "qwen", "loaded_instances": [{"id": "q"}]}, {"key": "x", "loaded_instances": []}]},
        ),
        ("/api/v0/models", {"data": [{"id": "qwen", "state": "loaded"}, {"id": "x", "state": "not-loaded"}]}),
    ],
)
async def test_lm_studio_tells_what_is_loaded_by_either_api(serve: Serve, path: str, answer: object):
    url = await serve({path: lambda: web.json_response(answer)})
    source = await open_server(endpoint(url, "lmstudio"))
    assert told((await source.read()).values) == {
        ("lmstudio:models_loaded", '{"endpoint": "a"}'): 1.0,
        ("lmstudio:model_instances", '{"endpoint": "a", "model": "qwen"}'): 1.0,
    }
    await source.close()


async def test_server_that_fails_for_a_while_is_missed_and_asked_again(serve: Serve):
    answers = [text("a 1\n"), text("overloaded", status=503), text("a 2\n")]
    url = await serve({"/metrics": lambda: answers.pop(0)()})
    source = await open_server(endpoint(url, "vllm"))
    with pytest.raises(Missed, match="HTTP 503"):
        await source.read()
    assert told((await source.read()).values) == {("a", '{"endpoint": "a"}'): 2.0}
    await source.close()


async def test_server_of_a_kind_that_tells_nothing_is_not_asked():
    with pytest.raises(Absent, match="a: transformers tells nothing of its state"):
        await open_server(endpoint("http://127.0.0.1:1", "transformers"))


async def test_exporter_is_asked_at_metrics_unless_a_path_is_given(serve: Serve):
    url = await serve({"/metrics": text('DCGM_FI_DEV_POWER_USAGE{gpu="0"} 300\n'), "/other": text("b 7\n")})
    where = url.removeprefix("http://")
    for given, name, labels in ((url, "gpu_power_watts", {"gpu": "0"}), (url + "/other", "b", {})):
        source = await open_exporter(given)
        values = told((await source.read()).values)
        assert list(values) == [(name, json.dumps({"exporter": where, **labels}))]
        await source.close()


async def test_exporter_whose_name_no_host_can_have_is_absent():
    with pytest.raises(Absent, match=r"^http://\.\./metrics: no host can have that name$"):
        await open_exporter("http://..")


async def test_answer_nested_deeper_than_can_be_read_is_no_json(serve: Serve):
    url = await serve({"/slots": text("[" * 100_000, "application/json")})
    with pytest.raises(Absent, match="/slots: it is not JSON"):
        await open_server(endpoint(url, "llamacpp"))


async def test_exporter_that_nobody_answers_for_is_missed_each_time():
    source = await open_exporter("http://127.0.0.1:1")
    with pytest.raises(Missed, match="connection refused"):
        await source.read()
    await source.close()
