"""The emulator's command line as one frozen value, parsed and written: a parent that spawns it writes one."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from .faults import FAULTS, FaultPlan
from .physics import Law

__all__ = ["IDENTITIES", "Options", "OptionsError", "arguments", "parse"]


IDENTITIES = ("vllm", "ollama", "lmstudio", "llamacpp", "openai")


class OptionsError(Exception):
    """An option the emulator cannot work with: one line that names it and the cure."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the emulator. All except `law` are about the server, not about its timing."""

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
        if self.presents not in IDENTITIES:
            raise OptionsError(f"--as {self.presents}: choose one of {', '.join(IDENTITIES)}")
        FaultPlan(self.faults, 0)  # raises ValueError for a fault that cannot be
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsError(message)


# name, type, default (None: off), meaning
_NUMBERS: tuple[tuple[str, type, float | None, str], ...] = (
    ("--port", int, 8000, "port of the first instance; 0 takes any free one"),
    ("--max-model-len", int, 131_072, "context length in tokens"),
    ("--ttft-ms", float, 50.0, "time to the first token of an empty prompt"),
    ("--gap-ms", float, 20.0, "time of a decode step; 0 floods"),
    ("--prefill-tokens-per-s", float, None, "prompt tokens lengthen the time to the first token at this rate"),
    ("--batch-slope-ms", float, 0.0, "what each further running request adds to a step"),
    ("--slots", int, None, "requests that run at once; the rest queue, first in, first out"),
    ("--kv-tokens", int, None, "size of the KV cache; requests wait until they fit in full"),
    ("--load-s", float, 0.0, "cold load of the model, at its first request"),
    ("--keep-alive-s", float, None, "idle time after which the model is unloaded"),
    ("--instances", int, 1, "servers on consecutive ports"),
    ("--gpu-share", float, 0.0, "0: a GPU for each instance; 1: n busy instances are n times slower"),
    ("--jitter", float, 0.0, "sigma of the lognormal factor (mean 1) of each step"),
    ("--mm1-rate", float, None, "be one exponential server of so many requests/s (M/M/1)"),
    ("--tokens-per-event", int, 1, "tokens that one decode step yields"),
    ("--output-tokens", int, 64, "length of an answer whose request sets no limit"),
    ("--eos-mean-tokens", float, None, "answers end by themselves, geometrically, after so many on average"),
    ("--seed", int, 0, "of everything that is drawn"),
    ("--max-seconds", float, None, "end by itself after that time"),
    ("--cpu", int, None, "core to run on"),
)


def parse(argv: Sequence[str]) -> Options:
    """The options of `loadgen emulate`. Raises OptionsError or ValueError with one line of text."""
    summary = "Serve answers of exactly known timing in the dialect of an LLM inference server."
    faults = "\n".join(f"  {name:<14}{meaning} (ARG {arg:g})" for name, (arg, meaning) in FAULTS.items())
    parser = _Parser(
        prog="loadgen emulate",
        allow_abbrev=False,
        description=summary,
        epilog=f"faults, also by request header X-Emulator-Fault: NAME[=ARG]\n{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--allow-remote", action="store_true", help="permit a --host beyond loopback")
    add("--as", dest="presents", default="vllm", choices=IDENTITIES, help="server to pose as (vllm)")
    add("--model", default="emulated", help="name of the one model it serves (emulated)")
    for name, kind, default, text in _NUMBERS:
        printed = "off" if default is None else f"{default:g}"
        add(name, type=kind, default=default, help=f"{text} ({printed})")
    add("--prefix-cache", action="store_true", help="prompt prefixes seen before cost no prefill")
    metavar = "NAME[:ARG]=RATE"
    add("--fault", dest="faults", action="append", default=[], metavar=metavar, help="RATE: 0.05 or 1/20; repeatable")
    add("--truth", type=Path, metavar="FILE", help="append what it did, one line of JSON a request")
    add("--spawned", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args(argv))
    law = {f.name: given.pop(f.name) for f in fields(Law) if f.name in given}
    law["ttft_s"], law["gap_s"] = given.pop("ttft_ms") / 1e3, given.pop("gap_ms") / 1e3
    law["batch_slope_s"] = given.pop("batch_slope_ms") / 1e3
    given["faults"] = tuple(given["faults"])
    return Options(law=Law(**law), **given)


def arguments(options: Options) -> list[str]:
    """The command line that `parse` turns into these options again."""
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
