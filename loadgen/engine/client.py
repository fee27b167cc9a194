"""One request: bytes out, one Record in.

The client joins what the transport knows (stamps) to what the dialect knows (events). Sending and making the record are
two steps, because the second need not happen at the instant the answer ends: being late changes no stamp.
"""

from __future__ import annotations

import hashlib

from loadgen import latency
from loadgen.record import Outcome, Record, TokensFrom
from loadgen.transport import Answer, Transport
from loadgen.wire import Ask, Response, Target
from loadgen.wire.dialects import Dialect
from loadgen.wire.memo import remembering, repeating

__all__ = ["Client"]

# llama_cpp.server answers 400, without a word, to an X-Request-Id that is not a UUID.
WANTS_UUID = frozenset({"llamacpp-python"})


class Client:
    """Requests to one endpoint, of one agent where there are any."""

    def __init__(self, name: str, target: Target, dialect: Dialect, transport: Transport, agent: str = "") -> None:
        self.name, self.agent = name, agent
        self.transport = transport
        self.in_flight = 0  # counted by the engine
        self._target, self._dialect = target, dialect
        self._body = repeating(dialect.request_body, target)
        self._decode = remembering(dialect.decode)
        self._streams = target.options.get("stream") is not False

    async def send(self, ask: Ask, request_id: str) -> tuple[Answer, bytes]:
        """(the answer to `ask`, not yet unpacked, and the body of the request)."""
        body = self._body(ask)
        if self._target.kind in WANTS_UUID:
            request_id = _as_uuid(request_id)
        return await self.transport.exchange(request_id, body, self._last_token_read), body

    def record(
        self, ask: Ask, body: bytes, answer: Answer, *, run: int, seq: int, intended_ns: int, zero_ns: int
    ) -> Record:
        """The record of an answer, which is decoded here, at any time after it ended.

        zero_ns: the run's start on the monotonic clock, to which intended_ns and everything in the record is relative.
        """
        if not answer.unpacked:
            answer.unpack()
        record = Record(
            run,
            seq,
            self.name,
            intended_ns,
            Outcome.OK,
            self.agent,
            session=ask.session,
            turn=ask.turn,
            input_tokens=ask.input_tokens,
            stale_connections=answer.stale_connections,
            prompt_sha=hashlib.sha256(body).hexdigest()[:16],
        )
        if answer.sent_ns is not None:
            record.sent_ns = answer.sent_ns - zero_ns
        if answer.sent_last_ns is not None:
            record.sent_last_ns = answer.sent_last_ns - zero_ns
        if answer.connect_ns is not None:
            record.connect_ns = answer.connect_ns - zero_ns
        if answer.connected_ns is not None:
            record.connected_ns = answer.connected_ns - zero_ns
        if answer.done_ns is not None:
            record.done_ns = answer.done_ns - zero_ns
        if answer.response is not None:
            self._read_answer(record, answer.response, answer, zero_ns)
        if answer.failure is not None and (answer.response is None or _explains_more(answer.failure, record)):
            record.outcome, record.error = answer.failure, answer.error
        return record

    def _read_answer(self, record: Record, response: Response, answer: Answer, zero_ns: int) -> None:
        """Fill `record` from the answer. An answer without streaming has no events: the times of its tokens are not
        known, so it has no TTFT.
        """
        decoded = self._decode(response)
        stamps = answer.stamps_ns
        record.headers_ns = int(stamps[answer.head_read]) - zero_ns
        record.status = response.status
        record.outcome, record.error = decoded.outcome, decoded.error
        if self._streams:
            record.event_ns = stamps[decoded.event_read]
            record.event_ns -= zero_ns
            record.event_kind, record.event_read = decoded.event_kind, decoded.event_read
            record.event_tokens = decoded.event_tokens
        if decoded.input_tokens is not None:
            record.input_tokens = decoded.input_tokens
        if self._streams or decoded.tokens_from is not TokensFrom.EVENTS:
            record.output_tokens, record.tokens_from = decoded.output_tokens, decoded.tokens_from
        record.cached_tokens, record.finish_reason = decoded.cached_tokens, decoded.finish_reason
        record.server_load_ns, record.server_queue_ns = decoded.server_load_ns, decoded.server_queue_ns
        record.server_prompt_eval_ns = decoded.server_prompt_eval_ns
        record.server_eval_ns = decoded.server_eval_ns

    def text(self, answer: Answer) -> str | None:
        """The text of an answer, None if it failed. Its record may be made later.

        The answer is decoded for this alone, so ask only where a later call needs it.
        """
        answer.unpack()
        answer.unpacked = True
        if answer.response is None or answer.failure not in (None, Outcome.TRUNCATED):
            return None
        decoded = self._dialect.decode(answer.response, keep_text=True)
        return decoded.text or "" if decoded.outcome is Outcome.OK else None

    def _last_token_read(self, response: Response) -> int:
        decoded = self._dialect.decode(response)
        token_reads = decoded.event_read[latency.bears_token(decoded.event_kind)]
        return int(token_reads[-1]) if len(token_reads) else -1


def _as_uuid(request_id: str) -> str:
    """ "run-seq" in the shape of a UUID, both numbers legible in it."""
    run, _, seq = request_id.partition("-")
    return f"{run:>08}-0000-4000-8000-{seq:>012}"


def _explains_more(failure: Outcome, record: Record) -> bool:
    """Whether the record states the transport's error: an error that the server sent explains more, and wins."""
    server_explained = record.outcome in (Outcome.SERVER_ERROR, Outcome.HTTP_ERROR)
    # A server may close right after its terminal marker without ending the chunked body (seen: none; allowed: yes).
    marked = record.outcome is Outcome.OK and failure is Outcome.TRUNCATED
    return not (server_explained or marked)
