"""Prompts from a file: JSON lines of loadgen's, OpenAI messages, or conversations in the ShareGPT format.

    {"prompt": "...", "output_tokens": 120}                                     prompt; output_tokens may be left out
    {"messages": [{"role": "user", "content": "..."}], "output_tokens": 120}    openai
    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}    sharegpt

A file holds one entry per line or is one JSON array. The first entry settles the format; a line of another format is an
error that names the line. Only conversations that do not begin with a human's turn and its answer are left out, and
counted, because published ShareGPT files are full of those. The first turn of a conversation is the prompt; its answer
gives the output length.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

import msgspec
import numpy as np
import orjson

from loadgen.errors import UsageError
from loadgen.manifest import WorkloadFacts
from loadgen.profile import Work
from loadgen.wire import Ask
from loadgen.workload.lengths import Lengths
from loadgen.workload.synthetic import OUTPUT_STREAM
from loadgen.workload.text import PREFIX_WORDS, RATIO, WORDS, Text, Unique
from loadgen.workload.tokens import Count

__all__ = ["Dataset"]

PROSE_TOKENS_PER_WORD = 4 / 3  # English prose: OpenAI's rule of thumb of 3/4 word per token
ORDER_STREAM = 4
KEYS = {"conversations": "sharegpt", "messages": "openai", "prompt": "prompt"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One request of the file: a prompt, or messages and which of them takes the prefix."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    first: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    answer: str | None = None  # set where the output's length is counted from the answer


class Dataset:
    """See `Workload`. Every entry is used once before any is used again; shuffled anew each time round."""

    def __init__(self, work: Work, seed: int, entries: list[_Entry], facts: WorkloadFacts, *, run: int = 0) -> None:
        self._work = work
        self._seed = seed
        self._entries = entries
        self._facts = facts
        self._answer_words = [len(e.answer.split()) if e.answer is not None else 0 for e in entries]
        self._tokens_per_word = PROSE_TOKENS_PER_WORD
        shared_tokens = work.shared_prefix_tokens
        self._shared = Text(WORDS, seed).cut(0, shared_tokens) if shared_tokens else None
        self._start_run(run)

    def _start_run(self, run: int) -> None:
        work, seed = self._work, self._seed
        self._run = run
        self._output = Lengths(work.output_tokens, seed, run, OUTPUT_STREAM) if work.output_tokens else None
        self._unique = None if work.cache == "none" else Unique(WORDS, seed, run)
        self._order: tuple[int, list[int]] = (-1, [])  # (time round, indices)

    @classmethod
    def read(cls, work: Work, seed: int, *, run: int, count: Count | None, method: str) -> Self:
        """The dataset in the file of `work`, all of it read and checked. Raises UsageError."""
        assert work.dataset is not None
        place = work.dataset
        entries, form, skipped = _parsed(place, work.dataset_format)
        if not entries:
            problem = (
                f"none of its {skipped} conversations opens with a human's turn and an answer" if skipped else "empty"
            )
            raise UsageError(f"{place}: no entry to send ({problem}), name another dataset")
        if count is not None:
            entries = _counted(entries, count)
        if work.system is not None:
            entries = [_with_system(entry, work.system) for entry in entries]
        facts = WorkloadFacts(
            source=place,
            format=form,
            entries=len(entries),
            skipped=skipped,
            method=RATIO if count is None else method,
        )
        return cls(work, seed, entries, facts, run=run)

    def ask(self, seq: int) -> Ask:
        """See `Workload.ask`. input_tokens counts the prompt in the file, without prefixes."""
        index = self._index(seq)
        entry = self._entries[index]
        if self._output is not None:
            output: int | None = self._output.at(seq)
        elif entry.answer is not None:
            output = max(1, round(self._answer_words[index] * self._tokens_per_word))
        else:
            output = entry.output_tokens
        head = self._unique.at(seq) if self._unique is not None else None
        if self._shared is not None:
            head = f"{self._shared} {head}"
        if entry.messages is None:
            prompt = f"{head}\n\n{entry.prompt}" if head is not None else entry.prompt
            return Ask(prompt, None, None, entry.input_tokens, output)
        messages = entry.messages if head is None else _headed(entry.messages, entry.first, head)
        return Ask(None, messages, None, entry.input_tokens, output)

    def _index(self, seq: int) -> int:
        time_round, at = divmod(seq, len(self._entries))
        if self._work.order == "sequential":
            return at
        if self._order[0] != time_round:
            entropy = np.random.SeedSequence([self._seed, self._run, ORDER_STREAM, time_round])
            order = np.random.Generator(np.random.Philox(entropy)).permutation(len(self._entries))
            self._order = (time_round, order.tolist())
        return self._order[1][at]

    def for_run(self, run: int) -> Self:
        """See `Workload.for_run`."""
        other = copy.copy(self)
        other._start_run(run)
        return other

    def learn(self, tokens_per_word: float) -> None:
        """See `Workload.learn`: sizes answers that the file gives as text."""
        if not tokens_per_word > 0:
            raise ValueError(f"tokens_per_word must be > 0, got {tokens_per_word}")
        self._tokens_per_word = tokens_per_word

    def describe(self) -> WorkloadFacts:
        """See `Workload.describe`."""
        work = self._work
        return msgspec.structs.replace(
            self._facts,
            tokens_per_word=self._tokens_per_word if self._facts.method == RATIO else None,
            order=work.order,
            cache=work.cache,
            unique_prefix_words=PREFIX_WORDS if self._unique is not None else 0,
            unique_prefix_at=self._unique_prefix_at(),
            shared_prefix_tokens=work.shared_prefix_tokens,
            output_tokens=work.output_tokens.model_dump(exclude_none=True) if work.output_tokens else "dataset",
            system=work.system is not None,
            seed=self._seed,
            run=self._run,
        )

    def _unique_prefix_at(self) -> str | None:
        if self._unique is None:
            return None
        return "after the shared prefix" if self._shared is not None else "start of the first system or user message"


def _headed(messages: list[dict[str, Any]], first: int, head: str) -> list[dict[str, Any]]:
    """A copy of `messages` whose message `first` begins with `head`."""
    out = messages.copy()
    content = out[first]["content"]
    text = {"type": "text", "text": head}
    out[first] = {**out[first], "content": [text, *content] if isinstance(content, list) else f"{head}\n\n{content}"}
    return out


def _counted(entries: list[_Entry], count: Count) -> list[_Entry]:
    """The entries with answers replaced by their length in tokens, and the length of prompts filled in."""
    prompts = [i for i, entry in enumerate(entries) if entry.prompt is not None]
    answers = [i for i, entry in enumerate(entries) if entry.answer is not None]
    out = list(entries)
    for i, tokens in zip(prompts, count([entries[i].prompt or "" for i in prompts]), strict=True):
        out[i] = replace(out[i], input_tokens=tokens)
    for i, tokens in zip(answers, count([entries[i].answer or "" for i in answers]), strict=True):
        out[i] = replace(out[i], output_tokens=max(1, tokens), answer=None)
    return out


def _with_system(entry: _Entry, system: str) -> _Entry:
    """The entry with `system` before its messages, unless it has a system message of its own."""
    messages = entry.messages or [{"role": "user", "content": entry.prompt}]
    if any(message["role"] == "system" for message in messages):
        return entry
    return replace(entry, prompt=None, messages=[{"role": "system", "content": system}, *messages], first=0)


# --- reading ---------------------------------------------------------------------------------------------------------


def _parsed(place: str, form: str) -> tuple[list[_Entry], str, int]:
    """The entries of a file, its format, and how many conversations were left out."""
    entries: list[_Entry] = []
    skipped = 0
    for where, raw in _objects(place):
        if not isinstance(raw, dict):
            _bad(where, 'is not an object, write e.g. {"prompt": "..."}')
        if form == "auto":
            form = next((KEYS[key] for key in KEYS if key in raw), "")
            if not form:
                _bad(where, f"has none of {', '.join(KEYS)}, give it one")
        entry = _READERS[form](raw, where)
        if entry is None:
            skipped += 1
        else:
            entries.append(entry)
    return entries, form, skipped


def _objects(place: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) for every line, or every element of an array."""
    try:
        data = Path(place).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"{place}: cannot be read: {error.strerror}, check work.dataset") from None
    if data.lstrip()[:1] == b"[":
        try:
            for index, value in enumerate(orjson.loads(data), start=1):
                yield f"{place}: entry {index}", value
        except orjson.JSONDecodeError as error:
            _bad(f"{place}: line {error.lineno}", f"is not JSON: {error.msg}, correct it")
        return
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            try:
                yield f"{place}: line {number}", orjson.loads(line)
            except orjson.JSONDecodeError as error:
                _bad(f"{place}: line {number}", f"is not JSON: {error.msg}, correct or remove it")


def _bad(where: str, fault: str) -> NoReturn:
    raise UsageError(f"{where}: {fault}")


def _prompt_entry(raw: dict[str, Any], where: str) -> _Entry:
    prompt = raw.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        _bad(where, "needs prompt, a text that is not empty")
    return _Entry(prompt=prompt, output_tokens=_output_tokens(raw, where))


def _openai_entry(raw: dict[str, Any], where: str) -> _Entry:
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages:
        _bad(where, "needs messages, a list that is not empty")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            _bad(where, f'messages[{index}] needs role and content, write e.g. {{"role": "user", "content": "..."}}')
    first = next((i for i, message in enumerate(messages) if message["role"] in ("system", "user")), None)
    if first is None:
        _bad(where, "messages need one of role system or user, add it")
    if not isinstance(messages[first].get("content"), str | list):
        _bad(where, f"messages[{first}].content must be text or a list of parts")
    return _Entry(messages=messages, first=first, output_tokens=_output_tokens(raw, where))


def _sharegpt_entry(raw: dict[str, Any], where: str) -> _Entry | None:
    turns = raw.get("conversations")
    if not isinstance(turns, list):
        _bad(where, "needs conversations, a list of turns")
    for index, turn in enumerate(turns):
        if (
            not isinstance(turn, dict)
            or not isinstance(turn.get("from"), str)
            or not isinstance(turn.get("value"), str)
        ):
            _bad(where, f'conversations[{index}] needs from and value, write e.g. {{"from": "human", "value": "..."}}')
    if len(turns) < 2 or turns[0]["from"] not in ("human", "user") or turns[1]["from"] not in ("gpt", "assistant"):
        return None
    prompt, answer = turns[0]["value"], turns[1]["value"]
    return _Entry(prompt=prompt, answer=answer) if prompt.strip() and answer.strip() else None


def _output_tokens(raw: dict[str, Any], where: str) -> int | None:
    tokens = raw.get("output_tokens")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1):
        _bad(where, f"output_tokens must be a whole number >= 1, got {tokens!r}")
    return tokens


_READERS = {"prompt": _prompt_entry, "openai": _openai_entry, "sharegpt": _sharegpt_entry}
