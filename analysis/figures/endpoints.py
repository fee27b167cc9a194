"""The figures of each endpoint, where a campaign has several."""

from __future__ import annotations

from msgspec import Struct

from analysis.estimate import Figure
from analysis.figures import throughput
from analysis.figures.metrics import Context, LatencyFigures, event_gaps, request_latencies
from analysis.records.measured import Measured

__all__ = ["EndpointRequests", "EndpointSection", "endpoints_of"]


class EndpointRequests(Struct, frozen=True, kw_only=True):
    """How many requests an endpoint answered, and how many failed."""

    completed: int
    failed: int


class EndpointSection(Struct, frozen=True, kw_only=True):
    """One endpoint."""

    requests: EndpointRequests
    ttft_ms: LatencyFigures
    tpot_ms: LatencyFigures
    e2e_ms: LatencyFigures
    event_gap_ms: LatencyFigures
    requests_per_s: Figure
    output_tokens_per_s: Figure


def endpoints_of(m: Measured, context: Context) -> dict[str, EndpointSection]:
    """Each endpoint by its name, in alphabetical order."""
    sections = {}
    for code, name in sorted(enumerate(m.requests.endpoints), key=lambda item: item[1]):
        here = m.requests.endpoint == code
        latencies = request_latencies(m, context, here)
        rates = throughput.rates(m, chosen=here)
        sections[name] = EndpointSection(
            requests=EndpointRequests(
                completed=int((here & m.requests.ok).sum()), failed=int((here & ~m.requests.ok).sum())
            ),
            ttft_ms=latencies["ttft_ms"],
            tpot_ms=latencies["tpot_ms"],
            e2e_ms=latencies["e2e_ms"],
            event_gap_ms=event_gaps(m, context, code),
            requests_per_s=rates["requests_per_s"].figure(),
            output_tokens_per_s=rates["output_tokens_per_s"].figure(),
        )
    return sections
