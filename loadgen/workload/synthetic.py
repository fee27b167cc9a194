"""Prompts of a wanted length out of random words: shared prefix, unique prefix, then a cut of a long text.

Lengths are in tokens of the user's prompt. With a calibrated vocabulary they are exact; otherwise words = tokens /
ratio. With a system text, the prefixes go in front of it and, like it, come on top of the prompt's length.
"""

from __future__ import annotations

import copy
from typing import Self

import numpy as np

from loadgen.manifest import WorkloadFacts
from loadgen.profile import Work
from loadgen.wire import Ask
from loadgen.workload.lengths import Lengths
from loadgen.workload.text import PLAIN, PREFIX_WORDS, RATIO, Text, Unique, Vocabulary

__all__ = ["Synthetic"]

PROMPT_STREAM, OUTPUT_STREAM, BODY_STREAM = 1, 2, 3
STRIDE = 0x9E37  # odd, so that body starts visit every word of the text before one comes again


class Synthetic:
    """See `Workload`."""

    def __init__(self, work: Work, seed: int, *, run: int = 0, vocabulary: Vocabulary = PLAIN) -> None:
        assert work.prompt_tokens is not None
        self._work = work
        self._seed = seed
        self._vocabulary = vocabulary
        self._tokens_per_word = vocabulary.tokens_per_word
        self._system = work.system
        self._text = Text(vocabulary.words, seed)
        self._start_run(run)
        self._size_prefixes()

    def _start_run(self, run: int) -> None:
        work, seed = self._work, self._seed
        assert work.prompt_tokens is not None
        self._run = run
        self._prompt = Lengths(work.prompt_tokens, seed, run, PROMPT_STREAM)
        self._output = Lengths(work.output_tokens, seed, run, OUTPUT_STREAM) if work.output_tokens else None
        self._unique = None if work.cache == "none" else Unique(self._vocabulary.words, seed, run)
        self._body_at = int(np.random.SeedSequence([seed, run, BODY_STREAM]).generate_state(1)[0])

    def _size_prefixes(self) -> None:
        shared_words = self._words(self._work.shared_prefix_tokens) if self._work.shared_prefix_tokens else 0
        # Of the seed alone: every run and worker shares the same text.
        self._shared = self._text.cut(0, shared_words) if shared_words else None
        unique_words = PREFIX_WORDS if self._unique is not None else 0
        self._head_words = 0 if self._system is not None else shared_words + unique_words
        self._least_words = self._head_words + 1
        self._least_tokens = self._tokens(self._least_words)

    def _words(self, tokens: int) -> int:
        """The number of words that make a text of `tokens`, at least one."""
        return max(1, round((tokens - self._vocabulary.first_tokens) / self._tokens_per_word) + 1)

    def _tokens(self, words: int) -> int:
        return self._vocabulary.first_tokens + round((words - 1) * self._tokens_per_word)

    def ask(self, seq: int) -> Ask:
        """See `Workload.ask`. A length too short for its prefixes is raised to fit them and one word."""
        tokens = self._prompt.at(seq)
        words = self._words(tokens)
        if words < self._least_words:
            words, tokens = self._least_words, self._least_tokens
        body = self._text.cut((self._body_at + STRIDE * seq) & Text.LENGTH - 1, words - self._head_words)
        head = self._unique.at(seq) if self._unique is not None else None
        output = self._output.at(seq) if self._output is not None else None
        if self._system is not None:
            return Ask(None, self._messages(self._system, head, body), None, tokens, output)
        if self._shared is not None:
            return Ask(f"{self._shared} {head} {body}", None, None, tokens, output)
        return Ask(f"{head} {body}" if head is not None else body, None, None, tokens, output)

    def _messages(self, system: str, head: str | None, body: str) -> list[dict[str, str]]:
        """The messages: a unique prefix goes before the system text, or after a shared one before it."""
        if self._shared is not None:
            system, body = f"{self._shared}\n\n{system}", f"{head} {body}"
        elif head is not None:
            system = f"{head}\n\n{system}"
        return [{"role": "system", "content": system}, {"role": "user", "content": body}]

    def for_run(self, run: int) -> Self:
        """See `Workload.for_run`."""
        other = copy.copy(self)
        other._start_run(run)
        return other

    def learn(self, tokens_per_word: float) -> None:
        """See `Workload.learn`."""
        if not tokens_per_word > 0:
            raise ValueError(f"tokens_per_word must be > 0, got {tokens_per_word}")
        if self._vocabulary.method == RATIO:
            self._tokens_per_word = tokens_per_word
            self._size_prefixes()

    def describe(self) -> WorkloadFacts:
        """See `Workload.describe`."""
        work = self._work
        return WorkloadFacts(
            source="synthetic",
            method=self._vocabulary.method,
            tokens_per_word=self._tokens_per_word,
            words=len(self._vocabulary.words),
            cache=work.cache,
            unique_prefix_words=PREFIX_WORDS if self._unique is not None else 0,
            unique_prefix_at=_unique_prefix_at(work) if self._unique is not None else None,
            shared_prefix_tokens=work.shared_prefix_tokens,
            prompt_tokens=work.prompt_tokens.model_dump(exclude_none=True) if work.prompt_tokens else None,
            least_prompt_tokens=self._least_tokens,
            output_tokens=work.output_tokens.model_dump(exclude_none=True) if work.output_tokens else None,
            system=work.system is not None,
            seed=self._seed,
            run=self._run,
        )


def _unique_prefix_at(work: Work) -> str:
    if work.cache == "shared":
        return "after the shared prefix" if work.system is None else "start of the user message"
    return "start of the prompt" if work.system is None else "start of the system message"
