"""The contents of requests: `ask(seq)` of a workload is the same `Ask` in any process and any order of calls.

Nothing carries over from one call to the next, so worker p of P may take the seqs that are p modulo P, and a request
can be made again from (seed, run, seq). The costly parts (text, tokenizer, files) are done when a workload is opened;
`ask` only joins what is ready.

To add a source of prompts: a class with the four methods of `Workload` and a line in `open_workload`.
"""

from __future__ import annotations

from typing import Protocol, Self

from loadgen.manifest import WorkloadFacts
from loadgen.profile import Work
from loadgen.wire import Ask
from loadgen.workload.dataset import Dataset
from loadgen.workload.synthetic import Synthetic
from loadgen.workload.text import PLAIN, Vocabulary
from loadgen.workload.tokens import Count, tokenizer_count

__all__ = ["Count", "Dataset", "Synthetic", "Vocabulary", "Workload", "open_workload", "tokenizer_count"]


class Workload(Protocol):
    """A source of requests."""

    def ask(self, seq: int) -> Ask:
        """The content of request `seq`: a pure function of the workload, the seed, the run and `seq`."""

    def for_run(self, run: int) -> Self:
        """The same workload for another run: other draws and other unique prefixes, the costly parts shared."""

    def learn(self, tokens_per_word: float) -> None:
        """Size prompts by this ratio of tokens to words from now on; no effect where a tokenizer gives lengths.

        Call it between runs, in every worker: changed half-way, it would make `ask` depend on when it is called.
        """

    def describe(self) -> WorkloadFacts:
        """The workload's description for the manifest: what is sent and how its lengths come about."""


def open_workload(
    work: Work, seed: int, *, run: int = 0, count: Count | None = None, method: str = "exact-tokenizer"
) -> Workload:
    """The workload that a profile's `work` describes.

    count: token counts of a batch of texts, from `tokenizer_count(directory)` or from the server's own tokenizer; used
    here and not kept, so that the result can be pickled. None sizes prompts by a ratio of tokens to words.
    method: the name of `count` in `describe()`, exact-tokenizer or server-tokenize.
    Raises UsageError when the dataset cannot be read, with the file, the line and the cure.
    """
    if work.dataset is not None:
        return Dataset.read(work, seed, run=run, count=count, method=method)
    vocabulary = PLAIN if count is None else Vocabulary.calibrated(count, method)
    return Synthetic(work, seed, run=run, vocabulary=vocabulary)
