"""The emulator's tokenizer: one token is one word.

Law: the tokens of a prompt are its whitespace-separated words (of all messages together; no template tokens), or the
length of a list of ids. Every generated token is one word of `WORDS`, with its leading space. All words are equally
long and all ids have four digits, so the events of one answer differ only in those bytes and can be cut from a
template.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["FIRST_ID", "WORDS", "count_tokens", "ids", "token_id", "words"]

FIRST_ID = 1000
WORDS = [f" {a}{b}{c}o".encode() for a in "bdfghjklmnprstvz" for b in "aeiu" for c in "lnrs"]
_INDEX = {word[1:].decode(): i for i, word in enumerate(WORDS)}
assert len(set(WORDS)) == 256


def words(first: int, count: int) -> bytes:
    """The text of `count` generated tokens, beginning with number `first` of an answer."""
    return b"".join([WORDS[i & 255] for i in range(first, first + count)])


def ids(first: int, count: int) -> list[int]:
    """The ids of the same tokens."""
    return [FIRST_ID + (i & 255) for i in range(first, first + count)]


def token_id(word: str) -> int:
    """The id of any word; words outside the vocabulary get ids above it."""
    index = _INDEX.get(word)
    return FIRST_ID + index if index is not None else FIRST_ID + 256 + crc32(word.encode()) % 8000


def count_tokens(prompt: object) -> int:
    """The number of tokens of a prompt: text, ids, a list of either, messages, or parts of a message."""
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, int):
        return 1
    if isinstance(prompt, list):
        return sum([count_tokens(part) for part in prompt])
    if isinstance(prompt, dict):
        return count_tokens(prompt.get("content", prompt.get("text")))
    return 0
