"""What a user gets who installs the wheel: `python -m tests.package` builds it and tries it as a stranger would.

A fresh virtual environment, no development tools, another working directory. An editable install hides what the wheel
lacks (profiles, the page's script, the list of words) and what the base install must not pull in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_IN_THE_BASE = {"torch", "tokenizers", "transformers", "ray", "pytest", "mypy", "ruff"}
HELP_S = 0.4
TRIAL = ["run", "quickstart", "--emulator", "--requests", "40", "--output-tokens", "16", "--no-progress"]


def call(*words: str | Path, cwd: Path, passes: Sequence[int] = (0,)) -> str:
    """Run a command and return what it printed; end with its output if its exit code is another."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode not in passes:
        sys.exit(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = ["-m", "pip", "--disable-pip-version-check", "--quiet"]
        call(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB")

        call(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
        python, loadgen = folder / "venv/bin/python", folder / "venv/bin/loadgen"
        began = time.monotonic()
        call(python, *pip, "install", wheel, cwd=folder)
        seconds = time.monotonic() - began
        call(python, "-m", "pip", "check", cwd=folder)
        listed = call(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check", cwd=folder)
        packages = {line.partition("==")[0].lower() for line in listed.splitlines()}
        if unwanted := packages & NOT_IN_THE_BASE:
            sys.exit(f"the base install pulls in {', '.join(sorted(unwanted))}")
        size = sum(path.stat().st_size for path in (folder / "venv").rglob("*") if path.is_file())
        print(
            f"base install: {len(packages)} packages, {size / 2**20:.0f} MiB, {seconds:.0f} s; pip check finds nothing"
        )

        def timed_help() -> float:
            began = time.monotonic()
            call(loadgen, "--help", cwd=folder)
            return time.monotonic() - began

        least = min(timed_help() for _ in range(6))
        if least > HELP_S:
            sys.exit(f"loadgen --help takes {least:.2f} s; it must answer within {HELP_S} s")
        print(f"loadgen --help: {least:.2f} s")

        # 4: the machine was too busy to measure well, which is not what is tried here.
        call(loadgen, *TRIAL, "--out", "trial", cwd=folder, passes=(0, 4))
        print(call(loadgen, "verify", "trial", cwd=folder).strip())


if __name__ == "__main__":
    main()
