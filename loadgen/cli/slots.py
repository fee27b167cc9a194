"""`loadgen slots`: how many requests a server really works on at once, and whether it remembers prompts."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.cli import options
from loadgen.cli.exits import Exit, Stop
from loadgen.cli.measuring import load_profile

if TYPE_CHECKING:
    from analysis.probes.prefix_cache import PrefixCache
    from analysis.probes.slots import Burst
    from loadgen.probes.probe import Send
    from loadgen.profile import Profile
    from loadgen.wire import Ask

__all__ = ["slots"]

SHORT_PROMPT, LONG_PROMPT = 24, 512  # words: quickly read beside the answer; worth caching in a context of 2,048 tokens
FEW_TOKENS = 4  # of an answer whose first token alone is of interest
TRIOS_A_ROUND = 2
LEAST_TOP = 4  # bursts of up to so many, even where a limit shows at two: more sizes than one should speak


def slots(
    url: Annotated[str | None, typer.Option("--url", help="The server; else the first local one that answers.")] = None,
    api: options.Api = None,
    model: options.Model = None,
    path: options.RequestPath = None,
    most: Annotated[int, typer.Option("--most", min=2, help="The largest burst.")] = 16,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often each size of burst is sent.")] = 5,
    output_tokens: Annotated[int, typer.Option("--output-tokens", min=2, help="Length of the answers.")] = 32,
    agents: Annotated[int | None, typer.Option("--agents", min=1, help="Say if so many find a slot each.")] = None,
    cache: Annotated[bool, typer.Option("--cache", help="Also look for a prefix cache, by repeating prompts.")] = False,
    option: options.Option = None,
    header: options.Header = None,
    api_key_env: options.ApiKeyEnv = None,
    ca_file: options.CaFile = None,
    insecure: options.Insecure = False,
    proxy: options.Proxy = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the prompts and the order of the bursts.")] = None,
    format_: Annotated[str, typer.Option("--format", help="text, markdown or json.")] = "text",
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write a page there.", metavar="FILE.html")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> int:
    """Find how many requests the server really works on at once, and say what to set."""
    from analysis.report.slots import slots_markdown, slots_page, slots_text

    forms: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "text": slots_text,
        "markdown": slots_markdown,
        "json": _json,
    }
    if format_ not in forms:
        raise Stop(Exit.USAGE, f"--format {format_}: choose one of {', '.join(forms)}")

    target = options.target_of(
        api=api,
        model=model,
        path=path,
        api_key_env=api_key_env,
        tokenizer=None,
        ca_file=ca_file,
        insecure=insecure,
        option=option,
        header=header,
    )
    # The load is not what will be sent; a profile must have one.
    overrides = {"load": {"concurrency": 1, "requests": 1}, "proxy": proxy, "seed": seed}
    profile = load_profile(None, [url] if url else None, target, overrides, quiet=quiet)
    result = _measure(profile, _Wanted(most, rounds, output_tokens, agents, cache, quiet))
    typer.echo(forms["json" if json_ else format_](result), nl=False)
    if out is not None:
        try:
            out.write_text(slots_page(result), encoding="utf-8")
        except OSError as error:
            raise Stop(
                Exit.USAGE, f"{out}: cannot be written: {error.strerror}; name another place with --out"
            ) from None
    sys.stdout.flush()  # before the line that says why it is not known
    if not result["answered"]:
        raise Stop(Exit.UNREACHABLE, f"every request failed: {result['turned_away']}")
    if result["verdict"] == "inconclusive":
        raise Stop(Exit.INCONCLUSIVE, f"slots inconclusive: {result['reason']}")
    if cache and result["cache"]["verdict"] == "inconclusive":
        raise Stop(Exit.INCONCLUSIVE, f"prefix cache inconclusive: {result['cache']['sentence']}")
    return Exit.OK


def _json(result: Mapping[str, Any]) -> str:
    return json.dumps(result, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What was asked for."""

    most: int
    rounds: int
    output_tokens: int
    agents: int | None
    cache: bool
    quiet: bool

    def say(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr)


def _measure(profile: Profile, wanted: _Wanted) -> dict[str, Any]:
    import asyncio

    from loadgen.engine.eventloop import loop_factory
    from loadgen.errors import Unreachable, UsageError
    from loadgen.probes.probe import ClockJumped

    try:
        with asyncio.Runner(loop_factory=loop_factory(profile.loop)) as runner:
            return runner.run(_probe(profile, wanted))
    except UsageError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except Unreachable as error:
        raise Stop(Exit.UNREACHABLE, str(error)) from None
    except (ClockJumped, OSError) as error:
        raise Stop(Exit.VOID, str(error)) from None


async def _probe(profile: Profile, wanted: _Wanted) -> dict[str, Any]:
    """Ask the server, send the bursts and the trios, and put together what they say."""
    import secrets

    import msgspec

    from analysis.probes.slots import advice, by_size, compare_told, find
    from loadgen import __version__
    from loadgen.clock import wall_iso
    from loadgen.probes.probe import open_sender, prompt
    from loadgen.servers.discover import slots_of
    from loadgen.servers.resolve import describe_endpoint, resolve
    from loadgen.transport.tier import choose_tier
    from loadgen.wire import Ask

    [spec] = profile.targets
    endpoint = await resolve(spec, profile.proxy)
    tier, _ = choose_tier(profile.tier, profile.proxy)
    seed = profile.seed if profile.seed is not None else secrets.randbits(32)
    numbers = itertools.count()

    def ask(words: int, tokens: int) -> Ask:
        return Ask(prompt=prompt(words, seed, next(numbers)), output_tokens=tokens)

    async with open_sender(endpoint, tier, most=wanted.most) as send:
        # Loads the model where it is not loaded; not measured.
        [first] = await send([ask(SHORT_PROMPT, wanted.output_tokens)])
        if first.first_token_ns() is None:
            why = f": {first.error}" if first.error else ""
            raise Stop(Exit.UNREACHABLE, f"{spec.url}: the first request ended as {first.outcome.value}{why}")
        told = await slots_of(endpoint)  # only now, for a model that is not loaded has no slots
        bursts = await _bursts(send, ask, wanted, seed)
        cache = await _cache(send, ask, wanted, seed) if wanted.cache else None
    found = find(bursts, wanted.output_tokens)
    return {
        "schema": "loadgen.slots/1",
        "loadgen": __version__,
        "wall": wall_iso(),
        "target": msgspec.to_builtins(describe_endpoint(endpoint)),
        "tier": tier,
        "seed": seed,
        "most": wanted.most,
        "rounds": wanted.rounds,
        "output_tokens": wanted.output_tokens,
        "answered": sum(one.answered for one in bursts),
        "slots": found.estimate.to_json(),
        "verdict": found.verdict,
        "reason": found.reason,
        "turned_away": found.turned_away,
        "told": None if told is None else {"slots": told[0], "from": told[1], "verdict": compare_told(found, told[0])},
        "agents": wanted.agents,
        "advice": advice(found, endpoint.target.kind, wanted.agents),
        "sizes": msgspec.to_builtins(by_size(bursts, found)),
        "cache": None if cache is None else msgspec.to_builtins(cache),
    }


async def _bursts(send: Send, ask: Callable[[int, int], Ask], wanted: _Wanted, seed: int) -> list[Burst]:
    """Look by doubling where a limit may be, then send the rounds that are judged, no larger than that calls for."""
    from analysis.probes.slots import burst, find, plan, scouted

    async def together(k: int) -> Burst:
        return burst(await send([ask(SHORT_PROMPT, wanted.output_tokens) for _ in range(k)]))

    scouts = []
    near = None
    for k in [
        *itertools.takewhile(lambda k: k < wanted.most, (1 << power for power in itertools.count())),
        wanted.most,
    ]:
        wanted.say(f"looking for a limit: {k} at once")
        scouts.append(await together(k))
        near = scouted(scouts)
        if near is not None:
            break
    top = wanted.most if near is None else min(wanted.most, max(scouts[-1].k, LEAST_TOP))
    bursts: list[Burst] = []
    while True:
        at = 0
        for number, k in plan(top, near, wanted.rounds, seed):
            if number == at:
                wanted.say(f"round {number + 1} of {wanted.rounds}: bursts of 1 to {top}, in random order")
                at += 1
            bursts.append(await together(k))
        if top == wanted.most or find(bursts, wanted.output_tokens).verdict != "at-least":
            return bursts
        top, near = wanted.most, None  # what looked like a limit was chance


async def _cache(send: Send, ask: Callable[[int, int], Ask], wanted: _Wanted, seed: int) -> PrefixCache:
    from analysis.probes.prefix_cache import find_cache, trio

    trios, sent = [], wanted.rounds * TRIOS_A_ROUND
    draw = random.Random(f"cache {seed}")
    wanted.say(f"repeating prompts: {sent} trios of {LONG_PROMPT} words")
    for _ in range(sent):
        same, different = ask(LONG_PROMPT, FEW_TOKENS), ask(LONG_PROMPT, FEW_TOKENS)
        other_first = draw.random() < 0.5
        order = (different, same, same) if other_first else (same, same, different)
        records = [(await send([one]))[0] for one in order]
        other, fresh, repeat = records if other_first else (records[2], records[0], records[1])
        measured = trio(fresh, repeat, other)
        if measured is not None:
            trios.append(measured)
    return find_cache(trios, sent)
