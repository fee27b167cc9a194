"""Prometheus text to values. Pure.

Histograms keep their sum and count and lose their buckets: a mean over any interval is the difference of two reads,
while the buckets of these servers are too coarse for percentiles (vLLM's first for request latencies ends at 0.3 s) and
make up nine lines in ten. What is dropped is dropped before parsing, which is slow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from loadgen.telemetry import Value, labelled
from loadgen.telemetry.throttle import throttle_values

__all__ = ["NotPrometheus", "gpu_names", "parse", "remembering_parser"]

# Buckets, times of creation, help, and metrics of a server's Python runtime and web framework.
_DROPPED = re.compile(
    r"^(?:# HELP|[a-zA-Z_:][a-zA-Z0-9_:]*(?:_bucket|_created)[{ ]"
    r"|(?:# TYPE )?(?:python|process|http|go|promhttp)_).*\n?",
    re.MULTILINE,
)
# A node exporter has a thousand series; these are about load, network and GPU.
_NODE = re.compile(
    r"node_(?:load1$|memory_Mem(?:Available|Total)_bytes$|netstat_Tcp_(?:RetransSegs|OutSegs)$|cpu_seconds_total$"
    r"|cpu_scaling_frequency_hertz$|pressure_|drm_|hwmon_(?:power|temp|freq|energy))"
)


class NotPrometheus(ValueError):
    """The text is not of the Prometheus format."""


def parse(text: str, **labels: str) -> list[Value]:
    """The values in `text`, with `labels` added to each. Raises NotPrometheus."""
    return _finite(_parsed(text, labels))


def remembering_parser(**labels: str) -> Callable[[str], list[Value]]:
    """A function like `parse` for one page that is read again and again.

    From one read to the next a page differs in its numbers, and parsing all of it anew costs a hundred times as much as
    reading those. So a line is recognised by the text before its number; a page with a new line is parsed as a whole.
    """
    value_of: dict[str, Value | None] = {}

    def read(text: str) -> list[Value]:
        lines = _sample_lines(text)
        heads = [(head, number) for head, _, number in (line.rpartition(" ") for line in lines)]
        if not all(head in value_of for head, _ in heads) or not heads:
            parsed = _parsed(text, labels)
            value_of.clear()
            if len(parsed) == len(lines) and all(map(_ends_in_value, heads, parsed)):
                value_of.update({head: value for (head, _), value in zip(heads, parsed, strict=True)})
            return _finite(parsed)
        series = ((value_of[head], number) for head, number in heads)
        try:
            return _finite(
                [value and Value(value.name, value.labels, float(number), value.counter) for value, number in series]
            )
        except ValueError as error:
            raise NotPrometheus(f"it is not Prometheus text: {error}") from None

    return read


def _finite(values: Sequence[Value | None]) -> list[Value]:
    return [value for value in values if value is not None and math.isfinite(value.value)]


def _ends_in_value(line: tuple[str, str], parsed: Value | None) -> bool:
    """Whether a line ends in the value that was read from it: a line with a time of its own does not."""
    try:
        number = float(line[1])
    except ValueError:
        return False
    return parsed is None or number == parsed.value or (math.isnan(number) and math.isnan(parsed.value))


def _sample_lines(text: str) -> list[str]:
    return [line for line in _DROPPED.sub("", text).splitlines() if line and not line.startswith("#")]


def _parsed(text: str, labels: Mapping[str, str]) -> list[Value | None]:
    """The value of each line; None for a line that is left out. Raises NotPrometheus."""
    if text.lstrip()[:1] in ("<", "{", "["):
        raise NotPrometheus("it is not Prometheus text")
    values: list[Value | None] = []
    try:
        for family in text_string_to_metric_families(_DROPPED.sub("", text)):
            grows = family.type in ("counter", "histogram")
            for sample in family.samples:
                dropped = sample.name.startswith("node_") and not _NODE.match(sample.name)
                if dropped or "quantile" in sample.labels:
                    values.append(None)
                    continue
                counter = grows or sample.name.endswith(("_total", "_sum", "_count"))
                values.append(Value(sample.name, labelled(**{**sample.labels, **labels}), sample.value, counter))
    except (ValueError, IndexError, KeyError) as error:
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise NotPrometheus(f"it is not Prometheus text: {reason}") from None
    return values


# --- the names that exporters give to the figures of NVML and sysfs ---------------------------------------------------

_DCGM = {
    "DCGM_FI_DEV_GPU_UTIL": ("gpu_utilization_ratio", 1e-2),
    "DCGM_FI_DEV_MEM_COPY_UTIL": ("gpu_memory_utilization_ratio", 1e-2),
    "DCGM_FI_DEV_FB_USED": ("gpu_memory_used_bytes", 2.0**20),
    "DCGM_FI_DEV_POWER_USAGE": ("gpu_power_watts", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("gpu_energy_joules_total", 1e-3),
    "DCGM_FI_DEV_SM_CLOCK": ("gpu_sm_clock_hertz", 1e6),
    "DCGM_FI_DEV_MEM_CLOCK": ("gpu_memory_clock_hertz", 1e6),
    "DCGM_FI_DEV_GPU_TEMP": ("gpu_temperature_celsius", 1.0),
}
_DCGM_THROTTLE = ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS")
_DRM = {
    "node_drm_gpu_busy_percent": ("gpu_utilization_ratio", 1e-2),
    "node_drm_memory_vram_used_bytes": ("gpu_memory_used_bytes", 1.0),
    "node_drm_memory_vram_size_bytes": ("gpu_memory_total_bytes", 1.0),
}


def gpu_names(values: Sequence[Value]) -> list[Value]:
    """`values`, those about GPUs under the names and units of nvml.py and amdgpu.py."""
    renamed = []
    for value in values:
        labels = json.loads(value.labels)
        where = {"gpu": labels.get("gpu") or labels.get("card") or "0", "exporter": labels.get("exporter", "")}
        if value.name in _DCGM_THROTTLE:
            renamed += throttle_values(int(value.value), **where)
            continue
        name, scale = _DCGM.get(value.name) or _DRM.get(value.name) or ("", 1.0)
        if not name:
            renamed.append(value)
            continue
        renamed.append(Value(name, labelled(**where), value.value * scale, name.endswith("_total")))
    return renamed
