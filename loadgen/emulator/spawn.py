"""The emulator beside the caller: a process of its own that reports when it listens and ends with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .options import Options, arguments
from .physics import Law
from .truth import Truth, read_truth

__all__ = ["Emulator", "spawn"]

STOP_S = 5.0


class Emulator:
    """A running emulator."""

    def __init__(self, process: subprocess.Popen[bytes], urls: list[str], truth_path: Path) -> None:
        self._process = process
        self.urls = urls  # one per instance
        self.url = urls[0]
        self.ports = [int(url.rpartition(":")[2]) for url in urls]
        self.port = self.ports[0]
        self.pid = process.pid
        self.truth_path = truth_path

    def truth(self) -> dict[str, Truth]:
        """The truth of every finished request, by its X-Request-Id (else "#<seq>")."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        if self._process.poll() is None:
            stdin.write(b"sync\n")
            stdin.flush()
            stdout.readline()
        return read_truth(self.truth_path)

    def stop(self) -> int:
        """The exit code of the process, which is ended by its id. May be called twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return self._process.wait()


@contextmanager
def spawn(
    law: Law | None = None,
    *,
    port: int = 0,
    truth: str | Path | None = None,
    cpu: int | None = None,
    presents: str = "vllm",
    model: str = "emulated",
    max_model_len: int = 131_072,
    faults: tuple[str, ...] = (),
    max_seconds: float | None = 3600.0,
) -> Iterator[Emulator]:
    """An emulator that serves `law` on loopback from a new process for the length of a `with` block.

    truth: where to append the log; None keeps it in a temporary file that goes with the block.
    cpu: the core to pin the emulator to. Raises RuntimeError if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="loadgen-emulator-") as folder:
        path = Path(truth) if truth is not None else Path(folder) / "truth.jsonl"
        options = Options(
            law=law or Law(),
            port=port,
            presents=presents,
            model=model,
            max_model_len=max_model_len,
            faults=faults,
            truth=path,
            max_seconds=max_seconds,
            cpu=cpu,
            spawned=True,
        )
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-m", "loadgen.emulator", *arguments(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert process.stdout is not None
        ready = process.stdout.readline().decode().split()
        emulator = Emulator(process, [word for word in ready if word.startswith("http://")] or [":0"], path)
        try:
            if ready[:2] != ["emulator", "ready:"]:
                raise RuntimeError(f"the emulator did not start (exit code {process.wait(STOP_S)})")
            yield emulator
        finally:
            emulator.stop()
