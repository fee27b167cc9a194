"""The machine the client runs on, and the client itself.

Shares are of the time since the read before, so a short disturbance shows in the sample it fell into. Frequency and
governor come from cpufreq, which a virtual machine usually does not have. TCP counts are those of this network
namespace, all connections together: segments sent again are the sign of a network that loses packets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from loadgen.clock import NS_PER_S, now_ns
from loadgen.telemetry import Absent, Source, Value, blocking, labelled

__all__ = ["open_host", "open_process"]

CPUFREQ = Path("/sys/devices/system/cpu/cpufreq")
PROC = Path("/proc")
ALL = labelled(core="all")
TCP = {
    "RetransSegs": "tcp_retransmitted_segments_total",
    "OutSegs": "tcp_sent_segments_total",
    "InErrs": "tcp_received_errors_total",
}
LOOK_FOR_WORKERS_NS = NS_PER_S


def open_host(cpufreq: Path = CPUFREQ, proc: Path = PROC) -> Source:
    """The source for this machine: CPU per core, frequency, governor, steal, memory, TCP."""
    cores = [labelled(core=core) for core in range(psutil.cpu_count() or 1)]
    policies = sorted(cpufreq.glob("policy*"), key=lambda path: int(path.name.removeprefix("policy")))
    before = psutil.cpu_times(percpu=True)

    def read() -> Sequence[Value]:
        nonlocal before
        now = psutil.cpu_times(percpu=True)
        memory = psutil.virtual_memory()
        values = [*_shares(before, now, cores), *_frequencies(policies), *_tcp(proc)]
        before = now
        return [
            *values,
            Value("memory_available_bytes", "{}", float(memory.available)),
            Value("memory_used_bytes", "{}", float(memory.used)),
        ]

    facts = {"cores": len(cores), "frequency": bool(policies)}
    return Source("host", blocking(read), facts)


def _shares(before: Sequence[Any], now: Sequence[Any], cores: Sequence[str]) -> list[Value]:
    """The busy shares per core and over all, and the share that a hypervisor took."""
    values = []
    spent = busy = stolen = 0.0
    for label, old, new in zip(cores, before, now, strict=False):
        # Guest time is in user time already.
        passed = {name: getattr(new, name) - getattr(old, name) for name in new._fields if "guest" not in name}
        total = sum(passed.values())
        idle = passed["idle"] + passed.get("iowait", 0.0)
        if total <= 0:
            continue
        spent += total
        busy += total - idle
        stolen += passed.get("steal", 0.0)
        values.append(Value("cpu_busy_ratio", label, _ratio(total - idle, total)))
    if spent > 0:
        values.append(Value("cpu_busy_ratio", ALL, _ratio(busy, spent)))
        values.append(Value("cpu_steal_ratio", ALL, _ratio(stolen, spent)))
    return values


def _ratio(part: float, whole: float) -> float:
    # iowait may go backwards by a tick, see proc(5).
    return min(1.0, max(0.0, part / whole))


def _frequencies(policies: Sequence[Path]) -> list[Value]:
    values = []
    governors: Counter[str] = Counter()
    for policy in policies:
        try:
            hertz = float((policy / "scaling_cur_freq").read_text()) * 1e3
            governors[(policy / "scaling_governor").read_text().strip()] += 1
        except (OSError, ValueError):
            continue  # a core taken offline keeps its folder, not its figures
        values.append(Value("cpu_frequency_hertz", labelled(core=policy.name.removeprefix("policy")), hertz))
    return values + [Value("cpu_governor", labelled(governor=name), float(n)) for name, n in sorted(governors.items())]


def _tcp(proc: Path) -> list[Value]:
    """Counters of /proc/net/snmp, where a line of names precedes each line of values."""
    try:
        lines = [line.split() for line in (proc / "net" / "snmp").read_text().splitlines() if line.startswith("Tcp:")]
    except OSError:
        return []
    counts = dict(zip(*lines, strict=False)) if len(lines) == 2 else {}
    return [Value(name, "{}", float(counts[key]), counter=True) for key, name in TCP.items() if key in counts]


def open_process() -> Source:
    """The source for this process and the workers it started: CPU time, memory, context switches."""
    try:
        main = psutil.Process()
        main.cpu_times()
    except (psutil.Error, OSError) as error:
        raise Absent(f"our own process cannot be looked at ({error})") from None
    processes: dict[int, tuple[psutil.Process, str]] = {main.pid: (main, "main")}
    strangers: set[int] = set()
    looked_ns = now_ns()

    def read() -> Sequence[Value]:
        nonlocal looked_ns
        if now_ns() - looked_ns >= LOOK_FOR_WORKERS_NS:
            looked_ns = now_ns()
            _find_workers(main.pid, processes, strangers)
        values = []
        for pid, (process, role) in list(processes.items()):
            try:
                values += _of_process(process, labelled(pid=pid, role=role))
            except psutil.Error:
                del processes[pid]  # a worker whose run is over
        return values

    return Source("process", blocking(read), {"pid": main.pid})


def _find_workers(parent: int, processes: dict[int, tuple[psutil.Process, str]], strangers: set[int]) -> None:
    """Add to `processes` those children that are workers; an emulator started for the run is none."""
    children: set[int] = set()
    for task in (PROC / str(parent) / "task").glob("*/children"):
        try:
            children.update(map(int, task.read_text().split()))
        except OSError:
            continue  # that thread has ended
    for pid in children - processes.keys() - strangers:
        try:
            child = psutil.Process(pid)
            # How multiprocessing starts a process; its resource tracker is started otherwise.
            if any("multiprocessing.spawn" in part for part in child.cmdline()):
                processes[pid] = (child, "worker")
            else:
                strangers.add(pid)
        except psutil.Error:
            continue


def _of_process(process: psutil.Process, labels: str) -> list[Value]:
    with process.oneshot():
        cpu, memory, switches = process.cpu_times(), process.memory_info(), process.num_ctx_switches()
        threads = process.num_threads()
    return [
        Value("process_cpu_seconds_total", labels, cpu.user + cpu.system, counter=True),
        Value("process_resident_bytes", labels, float(memory.rss)),
        Value("process_threads", labels, float(threads)),
        Value("process_voluntary_switches_total", labels, float(switches.voluntary), counter=True),
        Value("process_involuntary_switches_total", labels, float(switches.involuntary), counter=True),
    ]
