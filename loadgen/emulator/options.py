"""What the emulator is told on its command line, as one frozen value; both ways, for a parent that spawns it."""

from __future__ import annotations

import argparse
import ipaddress
from dataclasses import dataclass, field, fields
from pathlib import Path

from .physics import Law

__all__ = ["Options", "OptionsError", "arguments", "parse"]


class OptionsError(Exception):
    """An option the emulator cannot work with: one line that names it and the cure."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything but the law is about the server, not about its timing."""

    law: Law = field(default_factory=Law)
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    presents: str = "vllm"
    model: str = "emulated"
    max_model_len: int = 131_072
    faults: tuple[str, ...] = ()
    truth: Path | None = None
    max_seconds: float | None = None
    allow_remote: bool = False
    cpu: int | None = None
    spawned: bool = False  # obey a parent on standard input, and end with it

    def __post_init__(self) -> None:
        if not self.allow_remote and not _is_loopback(self.host):
            raise OptionsError(f"--host {self.host} is not a loopback address; add --allow-remote if that is meant")
        if not 0 <= self.port <= 65535 or self.port + (self.law.instances - 1) * (self.port > 0) > 65535:
            raise OptionsError(f"--port {self.port} with --instances {self.law.instances} leaves the range 0 to 65535")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse(argv: list[str]) -> Options:
    """Return the options of `python -m loadgen.emulator`, the same words as `loadgen emulate`."""
    parser = argparse.ArgumentParser(prog="loadgen emulate", allow_abbrev=False, description=__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--as", dest="presents", default="vllm", choices=("vllm", "ollama", "lmstudio", "llamacpp", "openai"))
    add("--model", default="emulated")
    add("--max-model-len", type=int, default=131_072)
    add("--ttft-ms", type=float, default=50.0)
    add("--gap-ms", type=float, default=20.0)
    add("--prefill-tokens-per-s", type=float)
    add("--batch-slope-ms", type=float, default=0.0)
    add("--slots", type=int)
    add("--kv-tokens", type=int)
    add("--load-s", type=float, default=0.0)
    add("--keep-alive-s", type=float)
    add("--instances", type=int, default=1)
    add("--gpu-share", type=float, default=0.0)
    add("--jitter", type=float, default=0.0)
    add("--mm1-rate", type=float)
    add("--tokens-per-event", type=int, default=1)
    add("--output-tokens", type=int, default=64)
    add("--eos-mean-tokens", type=float)
    add("--prefix-cache", action="store_true")
    add("--fault", dest="faults", action="append", default=[], metavar="NAME[:ARG]=RATE")
    add("--truth", type=Path)
    add("--seed", type=int, default=0)
    add("--max-seconds", type=float)
    add("--allow-remote", action="store_true")
    add("--cpu", type=int)
    add("--spawned", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    law = {f.name: given.pop(f.name) for f in fields(Law) if f.name in given}
    law["ttft_s"], law["gap_s"] = given.pop("ttft_ms") / 1e3, given.pop("gap_ms") / 1e3
    law["batch_slope_s"] = given.pop("batch_slope_ms") / 1e3
    given["faults"] = tuple(given["faults"])
    return Options(law=Law(**law), **given)


def arguments(options: Options) -> list[str]:
    """Return the command line that `parse` turns into these options again."""
    renamed = {"presents": "as", "faults": "fault", "ttft_s": "ttft_ms", "gap_s": "gap_ms"}
    renamed["batch_slope_s"] = "batch_slope_ms"
    words: list[str] = []
    pairs = [(f.name, getattr(options, f.name)) for f in fields(Options) if f.name != "law"]
    pairs += [(f.name, getattr(options.law, f.name)) for f in fields(Law)]
    for name, value in pairs:
        word = "--" + renamed.get(name, name).replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(word)
        elif isinstance(value, tuple):
            words += [f"{word}={item}" for item in value]
        elif renamed.get(name, "").endswith("_ms"):
            words.append(f"{word}={value * 1e3!r}")
        else:
            words.append(f"{word}={value}")
    return words
