"""One answer to a control call, read to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

__all__ = ["Reply", "json_by_path"]


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer of any status."""

    status: int
    content_type: str  # as the header gives it, "" without one
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def media_type(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body parsed. Raises ValueError where it is not JSON."""
        return orjson.loads(self.body)

    def json_or_none(self) -> Any:
        try:
            return self.json()
        except ValueError:
            return None


def json_by_path(replies: Mapping[str, Reply]) -> dict[str, Any]:
    """The parsed bodies of the `replies` with status 2xx, by path; None for a body that is not JSON."""
    return {path: reply.json_or_none() for path, reply in replies.items() if reply.ok}
