"""Fixtures that yield the address of a real server, such as http://127.0.0.1:8103, with a tiny random model.

    vllm_url             vLLM on the CPU, up to 64 answers at once
    llama_server_url     llama.cpp's llama-server, 8 slots
    llamacpp_python_url  llama_cpp.server, one answer at a time
    transformers_url     transformers serve, one answer at a time
    real_server          real_server("llama-server", slots=2, model="tiny-eos") returns the address of any other
    model_name           model_name("transformers", "tiny") returns what a request must call the model
    tiny_model           the folder of the model, with its tokenizer.json

The first use installs the server (minutes, once per machine) and starts it. What was started is shared by all
tests and stopped after the last. A test is skipped, with the reason, where its server cannot be installed; a
server that is installed and does not start fails the test. LOADGEN_REAL_URL_VLLM, _LLAMA_SERVER,
_LLAMACPP_PYTHON and _TRANSFORMERS name a server that already runs (say, by `servers.py start`), to be used as it
is in place of the fixture's own: vLLM takes half a minute to start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import servers

RealServer = Callable[..., str]


@pytest.fixture(scope="session")
def real_server() -> Iterator[RealServer]:
    """Return a function (name, *, slots=None, model="tiny") that returns the address of such a server."""
    running: dict[tuple[str, int | None, str], servers.Running] = {}

    def address(name: str, *, slots: int | None = None, model: str = "tiny") -> str:
        key = (name, slots, model)
        if key not in running:
            try:
                servers.install(name)
            except servers.Unavailable as reason:
                pytest.skip(str(reason))
            port = servers.free_port(servers.SPECS[name].port)
            running[key] = servers.start(name, port=port, slots=slots, model=model)
        return running[key].url

    yield address
    for server in running.values():
        servers.stop(server.name, port=server.port)


def _url(name: str, real_server: RealServer) -> str:
    already = os.environ.get(f"LOADGEN_REAL_URL_{name.upper().replace('-', '_')}")
    return already or real_server(name)


@pytest.fixture(scope="session")
def vllm_url(real_server: RealServer) -> str:
    return _url("vllm", real_server)


@pytest.fixture(scope="session")
def llama_server_url(real_server: RealServer) -> str:
    return _url("llama-server", real_server)


@pytest.fixture(scope="session")
def llamacpp_python_url(real_server: RealServer) -> str:
    return _url("llamacpp-python", real_server)


@pytest.fixture(scope="session")
def transformers_url(real_server: RealServer) -> str:
    return _url("transformers", real_server)


@pytest.fixture(scope="session")
def model_name() -> Callable[[str, str], str]:
    return lambda name, model: servers.SPECS[name].model_name(model)


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    try:
        servers.install_models()
    except servers.Unavailable as reason:
        pytest.skip(str(reason))
    return servers.model_folder("tiny")
