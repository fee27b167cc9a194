"""The requests of agents: three workloads of a benchmark analyst, and synthetic prompts.

two-stage   asks for an analysis of a listing of files, then for a report from the listing and that analysis
micro       one call; the collector takes stock, the insight agent draws conclusions
single      the same as micro; the answer comes in one piece
synthetic   prompts of the profile's lengths, one call per round

The work of an agent is the same in every run, alone or beside others. Only a prefix of a few words differs between
runs, so that no cache of an earlier run answers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from loadgen.errors import UsageError
from loadgen.manifest import WorkloadFacts
from loadgen.wire import Ask
from loadgen.workload.synthetic import Synthetic
from loadgen.workload.text import PLAIN, PREFIX_WORDS, Unique

__all__ = ["ROLES", "STAGES", "AgentsWork", "describe_files", "files_in", "sample_files"]

STAGES = {  # the calls of a round
    "two-stage": ("analysis", "report"),
    "micro": ("report",),
    "single": ("report",),
    "synthetic": ("prompt",),
}
ROLES = ("collector", "insight")
TYPES = ("csv", "json", "md")
NAMES_SHOWN = 5  # per type

ANALYSIS = """\
You look after a folder of benchmark results. This is what is in it:

{listing}

Say what these files tell about the benchmarks that were run. Write four short parts: a summary, the main findings,
the metrics that seem to have been recorded, and what you would do next. Speak only of what the listing supports."""

REPORT = """\
You look after a folder of benchmark results. This is what is in it:

{listing}

A colleague has made this analysis of it:

{analysis}

Turn it into a report in Markdown with six sections, in this order: Summary, Data, Findings, Metrics, Recommendations,
Open questions. Do not add figures that are not above."""

MICRO = {
    "collector": """\
This is a listing of a folder of benchmark results:

{listing}

Take stock of it in fewer than 250 words: which parts of the folder hold what, how many files there are of each type,
and which results one would expect that are not there.""",
    "insight": """\
This is a listing of a folder of benchmark results:

{listing}

Write for somebody who decides, in 300 to 400 words: a summary, three recommendations on how to make the benchmarked
system faster, and a table of risks with at least two rows.""",
}


class AgentsWork:
    """See `Workload`; requests are numbered agent by agent: seq = agent * calls_each + call.

    `hear` takes the answers that later calls need, in the run's process and before those calls are made.
    """

    def __init__(
        self,
        workload: str,
        roles: Sequence[str],
        *,
        output_tokens: int,
        seed: int,
        rounds: int = 1,
        data: str | None = None,
        lengths: Synthetic | None = None,
        run: int = 0,
    ) -> None:
        """roles: collector or insight, one per agent. data: a folder to list; None lists a made-up one.

        lengths: synthetic only: the prompts, without a unique prefix. Raises UsageError if `data` cannot be read.
        """
        self._workload, self._roles, self._rounds = workload, tuple(roles), rounds
        self._output_tokens, self._seed, self._data = output_tokens, seed, data
        self._stages = STAGES[workload]
        self._files = files_in(Path(data)) if data is not None else sample_files()
        self._listing = describe_files(self._files)
        self._lengths = lengths
        self._start_run(run)

    def _start_run(self, run: int) -> None:
        self._run = run
        self._unique = Unique(PLAIN.words, self._seed, run)
        self.heard: dict[int, str] = {}  # seq to the text of its answer

    @property
    def calls_each(self) -> int:
        """The number of calls of one agent in a run."""
        return self._rounds * len(self._stages)

    @property
    def calls_a_round(self) -> int:
        return len(self._stages)

    def follows(self, call: int) -> bool:
        """Whether an agent's call of this number needs the answer of the call before it."""
        return call % len(self._stages) > 0

    def stage(self, call: int) -> str:
        return self._stages[call % len(self._stages)]

    def ask(self, seq: int) -> Ask:
        """See `Workload.ask`. A call that builds on another needs the answer of that call first."""
        agent, call = divmod(seq, self.calls_each)
        prompt = f"{self._unique.at(seq)}\n\n{self._prompt(agent, call, seq)}"
        return Ask(prompt=prompt, output_tokens=self._output_tokens, turn=call)

    def _prompt(self, agent: int, call: int, seq: int) -> str:
        if self._lengths is not None:
            return self._lengths.ask(seq).prompt or ""
        if self._workload != "two-stage":
            return MICRO[self._roles[agent]].format(listing=self._listing)
        if self.stage(call) == "analysis":
            return ANALYSIS.format(listing=self._listing)
        return REPORT.format(listing=self._listing, analysis=self.heard[seq - 1])

    def hear(self, seq: int, text: str) -> None:
        """Take the answer to request `seq`."""
        self.heard[seq] = text

    def for_run(self, run: int, block: int = 0) -> Self:
        """See `Workload.for_run`. The lengths of synthetic prompts are those of the block, the same in all its arms."""
        other = copy.copy(self)
        if self._lengths is not None:
            other._lengths = self._lengths.for_run(block)
        other._start_run(run)
        return other

    def learn(self, tokens_per_word: float) -> None:
        """See `Workload.learn`."""
        if self._lengths is not None:
            self._lengths.learn(tokens_per_word)

    def describe(self) -> WorkloadFacts:
        """See `Workload.describe`."""
        if self._lengths is not None:
            about = msgspec.structs.replace(self._lengths.describe(), cache="unique")
        else:
            about = WorkloadFacts(method="text", data=self._data or "sample", files=len(self._files))
        return msgspec.structs.replace(
            about,
            source="agents",
            workload=self._workload,
            stages=self._stages,
            rounds=self._rounds,
            calls_each=self.calls_each,
            output_tokens=self._output_tokens,
            unique_prefix_words=PREFIX_WORDS,
            unique_prefix_at="start of the prompt",
            seed=self._seed,
        )


def describe_files(names: Sequence[str]) -> str:
    """The number of files of each type, and the first few names."""
    lines = [f"{len(names)} files"]
    for kind in TYPES:
        matching = [name for name in names if name.lower().endswith(f".{kind}")]
        lines.append(f"{kind}: {len(matching)}")
        lines += [f"- {name}" for name in matching[:NAMES_SHOWN]]
        if len(matching) > NAMES_SHOWN:
            lines.append(f"- and {len(matching) - NAMES_SHOWN} more")
    return "\n".join(lines)


def files_in(folder: Path) -> tuple[str, ...]:
    """The csv, json and md files below `folder`, by name. Raises UsageError if there are none."""
    try:
        if not folder.is_dir():
            raise UsageError(f"--data {folder}: is not a folder; name one that holds csv, json or md files")
        paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    except OSError as error:
        raise UsageError(f"--data {folder}: cannot be read: {error.strerror}") from None
    names = tuple(sorted(path for path in paths if path.lower().endswith(tuple(f".{kind}" for kind in TYPES))))
    if not names:
        raise UsageError(f"--data {folder}: holds no csv, json or md file; leave --data out to use the sample listing")
    return names


def sample_files() -> tuple[str, ...]:
    """The names of a folder of 101 benchmark files: 48 csv, 42 json, 11 md. There are no such files."""
    servers, sizes = ("alpha", "beta", "gamma"), ("1b", "4b", "8b", "14b")
    loads = ("idle", "steady", "burst", "ramp")
    csv = [f"{server}/latency_{size}_{load}.csv" for server in servers for size in sizes for load in loads]
    json = [f"{server}/run_{day:02}.json" for server in servers for day in range(1, 15)]
    notes = ("method", "hardware", "limits")
    md = [f"{server}/{note}.md" for server in servers for note in notes] + ["README.md", "changes.md"]
    return tuple(sorted([*csv, *json, *md]))
