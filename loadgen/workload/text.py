"""Text of a known number of tokens, sliced out of one long text made once.

A prompt is a run of common words joined by single spaces. The words in words.txt are one token each, with and without
a space before them, in the vocabularies of Llama 3 and Llama 4 (checked against their tokenizer files; other byte-level
BPE vocabularies share most of it), so n words are n tokens there. For any other tokenizer `Vocabulary.calibrated` keeps
the words for which that is true and then tests the sum on whole texts: tokenizers split at spaces before they merge, so
counts of such words add up. Where they do not, the method is reported as a ratio, and a measured one.

Rejected: counting and correcting each prompt. It is exact for any tokenizer, but costs a tokenizer call or a round trip
to the server per request, before the run or, worse, in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadgen.workload.tokens import Count

__all__ = ["PLAIN", "PREFIX_WORDS", "Text", "Unique", "Vocabulary"]

WORDS = tuple(Path(__file__).with_name("words.txt").read_text(encoding="ascii").split())
FEWEST_WORDS = 512  # three of them number 1.3e8 requests, more than a schedule may hold
RATIO = "ratio"
CHECKED_LENGTHS = (2, 7, 33, 129, 512)

TEXT_STREAM, UNIQUE_STREAM = 0x7E87, 0x0421  # keep draws of one seed apart


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that texts are made of, and the number of tokens they become."""

    words: tuple[str, ...]  # a power of two of them
    method: str  # exact-tokenizer | server-tokenize | ratio
    tokens_per_word: float  # 1 when exact
    first_tokens: int  # tokens of a text's first word, with those the tokenizer puts before it

    @classmethod
    def calibrated(cls, count: Count, method: str) -> Vocabulary:
        """The words that are one token each under `count`; all words with a measured ratio where these are too few.

        A word that is one token at the start and after a space has the least count when written twice. Makes about a
        thousand counts of two words and a few of whole texts.
        """
        doubled = count([f"{word} {word}" for word in WORDS])
        least = min(doubled)
        single = [word for word, tokens in zip(WORDS, doubled, strict=True) if tokens == least]
        if len(single) >= FEWEST_WORDS:
            single = single[: 1 << (len(single).bit_length() - 1)]
            texts = _samples(single)
            if list(count(texts)) == [least - 1 + n - 1 for n in CHECKED_LENGTHS]:
                return cls(tuple(single), method, 1.0, least - 1)
        # The mean of just these words, without what the tokenizer adds to a text.
        short, long = count([WORDS[0], " ".join(WORDS)])
        return cls(WORDS, RATIO, (long - short) / (len(WORDS) - 1), 1)


PLAIN = Vocabulary(WORDS, RATIO, 1.0, 1)


def _samples(words: Sequence[str]) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(words[i] for i in rng.integers(0, len(words), n)) for n in CHECKED_LENGTHS]


class Text:
    """A long random text of which any number of words can be cut out anywhere."""

    LENGTH_BITS = 16
    LENGTH = 1 << LENGTH_BITS  # words; about 0.4 MB

    def __init__(self, words: Sequence[str], seed: int) -> None:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, TEXT_STREAM])))
        order = rng.integers(0, len(words), self.LENGTH)
        # Written twice, so that a cut of up to LENGTH words may start anywhere.
        self._text = " ".join([words[i] for i in order] * 2) + " "
        spans = np.array([len(word) + 1 for word in words])[np.concatenate([order, order])]
        self._starts: list[int] = np.concatenate([[0], np.cumsum(spans)]).tolist()

    def cut(self, start: int, count: int) -> str:
        """`count` >= 1 words from word `start` < LENGTH on, without a space at either end."""
        if count <= self.LENGTH:
            starts = self._starts
            return self._text[starts[start] : starts[start + count] - 1]
        whole, rest = divmod(count, self.LENGTH)
        pieces = [self.cut(start, self.LENGTH)] * whole
        return " ".join([*pieces, self.cut(start, rest)] if rest else pieces)


PREFIX_WORDS = 6


class Unique:
    """A prefix of six words for each seq that no other request has.

    The first three words are seq in base len(words), the fastest-moving digit first: consecutive requests differ in
    their first word, so not even a cache that compares token by token can share anything. The others tell run and seed.
    """

    def __init__(self, words: Sequence[str], seed: int, run: int) -> None:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, UNIQUE_STREAM])))
        self._digits = [words[i] for i in rng.permutation(len(words))]
        self._bits = len(words).bit_length() - 1
        self._mask = len(words) - 1
        of_seed = [words[i] for i in rng.integers(0, len(words), 2)]
        self._tail = " ".join([self._digits[run & self._mask], *of_seed])

    def at(self, seq: int) -> str:
        """The prefix of request `seq`, without a space at either end."""
        digits, bits, mask = self._digits, self._bits, self._mask
        return f"{digits[seq & mask]} {digits[seq >> bits & mask]} {digits[seq >> 2 * bits & mask]} {self._tail}"
