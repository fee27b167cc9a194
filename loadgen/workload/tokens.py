"""Counting tokens with a model's own tokenizer, from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from loadgen.errors import UsageError

__all__ = ["Count", "tokenizer_count"]

Count = Callable[[Sequence[str]], Sequence[int]]  # token counts of a batch of texts, one per text


def tokenizer_count(directory: str | Path) -> Count:
    """A counter that uses the tokenizer.json in `directory`. Needs the extra `tokenizers`.

    Special tokens are not counted: they belong to the server's template, not to the prompt.
    """
    path = Path(directory).expanduser() / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(f"{path}: needs the package tokenizers, install loadgen[tokenizers]") from None
    if not path.is_file():
        raise UsageError(f"{path}: no such file, target.tokenizer must name the directory that holds it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exceptions
        raise UsageError(f"{path}: is not a tokenizer: {' '.join(str(error).split())}") from None

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count
