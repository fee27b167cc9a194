"""The options of the commands that measure, each declared once: flag, type, help, and the profile key that it sets.

From this table come the parameters that typer reads (`takes`), with them --help and the tables of docs/options.md, and
what the options say of a profile (`Given.overrides`). Adding an option is one line in OPTIONS, its name in COMMANDS,
and an attribute of the command's `Given` if it sets no key of a profile.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from loadgen.cli.target import headers, pairs

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["COMMANDS", "OPTIONS", "Given", "Measuring", "Option", "takes"]

Text, Texts = str | None, list[str] | None
Whole, Number = int | None, float | None
File = Path | None


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or an argument where it has no flag. help: of the commands that do not say it in their own words.

    kind: the annotation that typer reads. key: of the profile, dotted; "" where none is set. value: makes
    the key's value of what was given; None sets nothing.
    """

    name: str
    flag: str
    kind: Any
    help: str
    key: str = ""
    value: Callable[[Any], Any] = lambda given: given
    default: Any = None
    metavar: str | None = None
    least: int | None = None

    @property
    def parameter(self) -> inspect.Parameter:
        """The parameter of a command's function."""
        info: object
        if self.flag:
            info = typer.Option(self.flag, help=self.help, metavar=self.metavar, min=self.least)
        else:
            info = typer.Argument(help=self.help, metavar=self.metavar)
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=Annotated[self.kind, info]
        )


def _switch(name: str, flag: str, help: str, key: str = "", value: Callable[[Any], Any] = lambda on: on) -> Option:
    return Option(name, flag, bool, help, key, value, default=False)


def _pairs(name: str, flag: str, help: str, key: str) -> Option:
    return Option(name, flag, Texts, help, key, lambda given: pairs(flag, given) or None)


def _file(given: str | Path | None) -> str | None:
    return str(Path(given).expanduser()) if given else None


def _some(given: list[str] | None) -> list[str] | None:
    return given or None


_HOST = "127.0.0.1"
_SCENARIOS = "baseline_vs_chimera, chimera_hetero or chimera_homo."
_VARIANTS = "All, or some of kernel,uvloop,asyncio,callback,aiohttp,read-1k,read-64k,one-permit."

OPTIONS = {
    option.name: option
    for option in (
        Option("profile", "", Text, "A profile: a YAML file, or the name of a shipped one."),
        Option(
            "directory",
            "",
            Path,
            "The directory of a campaign, a sweep or runtimes.",
            default=inspect.Parameter.empty,
            metavar="DIR",
        ),
        # the servers
        Option("url", "--url", Texts, "The server; repeat for several."),
        Option("server", "--url", Text, "The server; else the first local one that answers."),
        Option("api", "--api", Text, "auto, openai, ollama or lmstudio.", "target.api"),
        Option("model", "--model", Text, "The model; auto takes the first one listed.", "target.model"),
        Option("path", "--path", Text, "The request path, such as /v1/completions.", "target.path"),
        _pairs("option", "--option", "Sent to the server, such as temperature=0.7.", "target.options"),
        Option(
            "header",
            "--header",
            Texts,
            "Sent with each request, as 'Name: value'.",
            "target.headers",
            lambda given: headers(given) or None,
        ),
        Option(
            "api_key_env", "--api-key-env", Text, "The environment variable that holds the key.", "target.api_key_env"
        ),
        Option(
            "tokenizer", "--tokenizer", Text, "A folder with tokenizer.json, for exact lengths.", "target.tokenizer"
        ),
        Option("ca_file", "--ca-file", Text, "Trust these certificates (PEM).", "target.ca_file"),
        _switch(
            "insecure",
            "--insecure",
            "Do not verify the server's certificate.",
            "target.verify_tls",
            lambda on: False if on else None,
        ),
        # the load
        Option("concurrency", "--concurrency", Whole, "Closed loop: requests in flight.", "load.concurrency"),
        Option("rate", "--rate", Number, "Open loop: requests a second.", "load.rate_per_s"),
        Option("arrivals", "--arrivals", Text, "poisson, constant, gamma, burst or closed.", "load.arrivals"),
        Option("burstiness", "--burstiness", Number, "Shape of gamma gaps; 1 is Poisson.", "load.burstiness"),
        Option(
            "max_in_flight", "--max-in-flight", Whole, "Cap of an open loop; the wait counts.", "load.max_in_flight"
        ),
        Option("requests", "--requests", Whole, "Stop after this many.", "load.requests"),
        Option("duration", "--duration", Number, "Stop after this many seconds.", "load.duration_s"),
        Option("warmup_requests", "--warmup-requests", Whole, "Sent first, not measured.", "load.warmup_requests"),
        Option("warmup", "--warmup", Number, "Seconds at the start that are not measured.", "load.warmup_s"),
        # what each request asks
        Option("input_tokens", "--input-tokens", Whole, "Length of the prompts.", "work.prompt_tokens"),
        Option("output_tokens", "--output-tokens", Whole, "Length of the answers.", "work.output_tokens"),
        Option("dataset", "--dataset", Text, "Prompts from this JSONL or ShareGPT file.", "work.dataset", _file),
        Option("cache", "--cache", Text, "unique, shared or none: prefixes of the prompts.", "work.cache"),
        # agents
        Option("scenario", "--scenario", Text, _SCENARIOS, "agents.scenario"),
        Option(
            "workload", "--workload", Text, "two-stage, micro, single (not streamed) or synthetic.", "agents.workload"
        ),
        Option("permits", "--permits", Whole, "Agents at work at once; all, if left out.", "agents.permits"),
        Option("agents", "--agents", Whole, "How many agents; 2, if left out.", "agents.count"),
        Option("think_ms", "--think-ms", Number, "From an answer to the agent's next call.", "agents.think_ms"),
        Option("rounds", "--rounds", Whole, "How often each does its work in a run.", "agents.rounds"),
        _pairs("baseline", "--baseline", "An option of baseline agents, such as num_ctx=4096.", "agents.baseline"),
        _pairs("chimera", "--chimera", "An option of chimera agents, such as num_gpu=80.", "agents.chimera"),
        _pairs("chimera2", "--chimera2", "An option of the second kind of chimera agents.", "agents.chimera2"),
        Option(
            "solo",
            "--solo/--no-solo",
            bool | None,
            "Measure each agent alone as well; speedup needs it.",
            "agents.solo",
        ),
        Option(
            "data", "--data", File, "The folder the agents are asked about; else a made-up one.", "agents.data", _file
        ),
        Option("agent_warmups", "--warmup-requests", Whole, "Sent first, not measured.", "agents.warmup_requests"),
        _switch(
            "artifacts",
            "--artifacts",
            "Also write the agents' answers and the multi-agent guide's files.",
            "agents.artifacts",
            lambda on: on or None,
        ),
        Option("phases", "--phases", Text, "Of a profile's configurations: all, or such as 1,3."),
        Option("variants", "--variants", Text, _VARIANTS),
        Option("against", "--against", Text, "Also compare the others with this variant.", metavar="VARIANT"),
        # how runs are put together
        Option("runs", "--runs", Whole, "How often to repeat it all.", "runs"),
        Option(
            "until",
            "--until",
            Text,
            "Repeat until the interval is so narrow to either side, such as 2%.",
            "campaign.until",
        ),
        Option(
            "until_metric",
            "--until-metric",
            Text,
            "What must be so narrow: both, ttft_ms or output_tokens_per_s.",
            "campaign.until_metric",
        ),
        Option("order", "--order", Text, "Of the arms: randomised or fixed.", "campaign.order"),
        Option(
            "control",
            "--control",
            Text,
            "This arm once more at the start and at the end.",
            "campaign.control",
            metavar="ARM",
        ),
        Option("cooldown", "--cooldown", Number, "Seconds between runs.", "campaign.cooldown_s"),
        Option(
            "isolation",
            "--isolation",
            Text,
            "Before each run: none, unload (the model) or process (a fresh one).",
            "campaign.isolation",
        ),
        Option("seed", "--seed", Whole, "Makes schedule and prompts repeatable.", "seed"),
        Option("workers", "--workers", Whole, "Processes that share the load.", "workers"),
        _pairs("objective", "--objective", "Such as ttft_p99_ms=500; repeat for several.", "objectives"),
        # how it is measured
        Option(
            "telemetry_url",
            "--telemetry-url",
            Texts,
            "Sample this dcgm-exporter or node exporter too.",
            "telemetry.exporters",
            _some,
        ),
        Option(
            "telemetry_interval",
            "--telemetry-interval",
            Number,
            "Seconds between samples; 0 takes none.",
            "telemetry.interval_s",
        ),
        Option("proxy", "--proxy", Text, "An HTTP proxy (lowers the tier to aiohttp).", "proxy"),
        Option("tier", "--tier", Text, "auto, kernel, callback or aiohttp.", "tier"),
        Option("loop", "--loop", Text, "auto, uvloop or asyncio.", "loop"),
        # where it goes
        Option("prometheus_port", "--prometheus-port", Whole, "Serve live /metrics on this port."),
        Option("prometheus_host", "--prometheus-host", str, "The address to serve /metrics on.", default=_HOST),
        Option("push_gateway", "--push-gateway", Text, "Push the final counts there.", metavar="URL"),
        Option("remote_write", "--remote-write", Text, "Write the final counts to this Prometheus.", metavar="URL"),
        Option("out", "--out", File, "The run's directory; a new one.", metavar="DIR"),
        _switch("emulator", "--emulator", "Measure an emulator started for the occasion."),
        _switch("json", "--json", "Print summary.json instead of the text."),
        _switch("quiet", "--quiet", "Print nothing but errors."),
        _switch("no_progress", "--no-progress", "No progress line."),
        _switch("live", "--live", "Draw a table with sparklines instead of the progress line."),
        # of slots and discover
        Option("most", "--most", int, "The largest burst.", default=16, least=2),
        Option("burst_rounds", "--rounds", int, "How often each size of burst is sent.", default=5, least=1),
        Option("answer_tokens", "--output-tokens", int, "Length of the answers.", default=32, least=2),
        Option("needed", "--agents", Whole, "Say if so many find a slot each.", least=1),
        _switch("repeats", "--cache", "Also look for a prefix cache, by repeating prompts."),
        Option("format", "--format", str, "text, markdown or json.", default="text"),
        Option("page", "--out", File, "Also write a page there.", metavar="FILE.html"),
        _switch("small_writes", "--small-writes", "Also send some 20 short requests, to see if tokens are held back."),
    )
}

_SERVERS = ("url", "api", "model", "path")
_REQUESTS = ("option", "header", "api_key_env", "tokenizer", "ca_file", "insecure")
_SAMPLES = ("telemetry_url", "telemetry_interval", "proxy", "tier", "loop")
_OUTLETS = ("prometheus_port", "prometheus_host", "push_gateway", "remote_write")
_OUTPUT = ("out", "emulator", "json", "quiet", "no_progress")
_AGENTS = (
    *("profile", "scenario", *_SERVERS, "workload", "permits", "agents", "think_ms", "rounds"),
    *("baseline", "chimera", "chimera2", "solo", "data", "phases", "input_tokens", "output_tokens", "agent_warmups"),
    *("runs", "until", "until_metric", "order", "control", "cooldown", "isolation", "seed", "objective"),
    *(*_REQUESTS, *_SAMPLES, *_OUTLETS, "artifacts", *_OUTPUT, "live"),
)

# In the order of --help.
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": (
        *("profile", *_SERVERS, "concurrency", "rate", "arrivals", "burstiness", "max_in_flight", "requests"),
        *("duration", "input_tokens", "output_tokens", "dataset", "cache", "warmup_requests", "warmup"),
        *("runs", "until", "until_metric", "cooldown", "isolation", "seed", "workers", "objective"),
        *(*_REQUESTS, *_SAMPLES, *_OUTLETS, *_OUTPUT, "live"),
    ),
    "agents": _AGENTS,
    "matrix": _AGENTS,
    "runtimes": (
        *("profile", "variants", "against", "scenario", *_SERVERS, "workload", "agents", "rounds", "solo", "data"),
        *("phases", "input_tokens", "output_tokens", "agent_warmups", "runs", "order", "cooldown", "seed"),
        *(*_REQUESTS, "proxy", *_OUTPUT),
    ),
    "slots": (
        *("server", "api", "model", "path", "most", "burst_rounds", "answer_tokens", "needed", "repeats"),
        *("option", "header", "api_key_env", "ca_file", "insecure", "proxy", "seed", "format", "json", "page", "quiet"),
    ),
    "resume": ("directory", "header", "option", "url", "path", "proxy", "json", "quiet", "no_progress"),
    "discover": ("url", "small_writes", "model", "json"),
}

# Where a command says the same option in its own words.
HELP = {
    ("runtimes", "solo"): "Measure each agent alone as well; efficiency needs it.",
    ("runtimes", "order"): "Of variants, configurations and arms: randomised or fixed.",
    ("slots", "seed"): "Of the prompts and the order of the bursts.",
    ("slots", "json"): "The same as --format json.",
    ("slots", "quiet"): "No progress.",
    ("resume", "header"): "A header again, as 'Name: value', for none is kept.",
    ("resume", "option"): "An option again, as NAME=VALUE, if it may be secret.",
    ("resume", "url"): "A server's URL again, if its query holds a secret.",
    ("resume", "path"): "The request path again, if it holds a secret.",
    ("resume", "proxy"): "The proxy again, if it has a password.",
    ("discover", "url"): "Ask here instead of the usual local addresses.",
    ("discover", "json"): "Machine-readable output.",
}


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the options of a command say.

    target: of every target of a profile, by key. overrides: of the rest of it, nested like a profile. Both hold only
    what was given. The other options are attributes.
    """

    target: dict[str, JsonValue] = field(default_factory=dict)
    overrides: dict[str, JsonValue] = field(default_factory=dict)
    url: list[str] | None = None
    json: bool = False
    quiet: bool = False

    def section(self, name: str) -> dict[str, JsonValue]:
        """The overrides of one section of the profile."""
        given = self.overrides.get(name)
        return given if isinstance(given, dict) else {}


@dataclass(frozen=True, kw_only=True)
class Measuring(Given):
    """What the options of `run`, `agents`, `matrix` and `runtimes` say."""

    profile: str | None = None
    phases: str | None = None
    variants: str | None = None
    against: str | None = None
    prometheus_port: int | None = None
    prometheus_host: str = _HOST
    push_gateway: str | None = None
    remote_write: str | None = None
    out: Path | None = None
    emulator: bool = False
    no_progress: bool = False
    live: bool = False

    @property
    def progress(self) -> bool:
        """Whether to draw how far the runs are."""
        return not (self.quiet or self.no_progress)


def options_of(command: str) -> tuple[Option, ...]:
    """The options of a command, in the order of its help and in its words."""
    options = [OPTIONS[name] for name in COMMANDS[command]]
    return tuple(replace(option, help=HELP.get((command, option.name), option.help)) for option in options)


_G = TypeVar("_G", bound=Given)


def takes(command: str, kind: type[_G]) -> Callable[[Callable[[_G], int]], Callable[..., int]]:
    """Make of a function of a `Given` the function of a command, with the parameters that typer reads."""
    options = options_of(command)

    def decorated(function: Callable[[_G], int]) -> Callable[..., int]:
        @functools.wraps(function)
        def call(**given: Any) -> int:
            return function(_given(options, kind, given))

        parameters = [option.parameter for option in options]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": int}
        setattr(call, "__signature__", inspect.Signature(parameters, return_annotation=int))  # noqa: B010
        return call

    return decorated


def _given(options: tuple[Option, ...], kind: type[_G], given: dict[str, Any]) -> _G:
    plain = {option.name: given[option.name] for option in options if not option.key}
    top: dict[str, JsonValue] = {}
    sections: dict[str, dict[str, JsonValue]] = {"target": {}}
    for option in options:
        value = option.value(given[option.name]) if option.key else None
        if value is not None:
            name, _, key = option.key.rpartition(".")
            section = sections.setdefault(name, {}) if name else top
            section[key] = value
    return kind(target=sections.pop("target"), overrides={**top, **sections}, **plain)
