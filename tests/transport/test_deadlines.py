"""The wheel that watches every limit, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from loadgen.clock import NS_PER_S
from loadgen.transport.deadlines import TICK_NS, Deadlines
from tests.fakes.virtual import VirtualLoop, run_virtually


@dataclass(eq=False)
class Watched:
    due_ns: int
    slot: int = 0
    fired_ns: int = 0
    fired: int = 0


def test_a_deadline_fires_after_its_instant_and_never_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        def check(item: Watched) -> None:
            item.fired_ns, item.fired = loop.now_ns(), item.fired + 1

        wheel = Deadlines(loop, check)
        present = loop.now_ns()
        items = [
            Watched(present + round(after_s * NS_PER_S)) for after_s in (0, 0.01, 0.099, 0.1, 0.101, 0.25, 60, 3600)
        ]
        for item in items:
            item.slot = wheel.add(item, item.due_ns)
        await asyncio.sleep(3601)
        assert [item.fired for item in items] == [1] * len(items)
        assert all(item.due_ns <= item.fired_ns <= item.due_ns + 2 * TICK_NS for item in items)
        assert list(wheel) == []

    run_virtually(monkeypatch, main)


def test_a_removed_deadline_leaves_no_trace_and_the_wheel_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        fired: list[Watched] = []
        wheel = Deadlines(loop, fired.append)  # type: ignore[arg-type]
        for _ in range(1000):
            item = Watched(loop.now_ns() + 120 * NS_PER_S)
            item.slot = wheel.add(item, item.due_ns)
            assert list(wheel) == [item]
            wheel.remove(item, item.slot)
            wheel.remove(item, item.slot)  # twice does no harm
        assert wheel._slots == {}
        await asyncio.sleep(3 * TICK_NS / NS_PER_S)
        assert wheel._timer is None
        assert fired == []

    run_virtually(monkeypatch, main)


def test_a_check_may_ask_to_be_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        def check(item: Watched) -> int | None:
            item.fired += 1
            assert loop.now_ns() >= item.due_ns
            if item.fired == 3:
                return None
            item.due_ns = loop.now_ns() + TICK_NS
            return item.due_ns

        wheel = Deadlines(loop, check)
        item = Watched(loop.now_ns() + TICK_NS)
        item.slot = wheel.add(item, item.due_ns)
        await asyncio.sleep(0.8)
        assert item.fired == 3
        assert list(wheel) == []

    run_virtually(monkeypatch, main)


def test_a_rearmed_deadline_can_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        def check(item: Watched) -> int:
            item.fired += 1
            return loop.now_ns() + 60 * NS_PER_S

        wheel = Deadlines(loop, check)
        item = Watched(loop.now_ns())
        item.slot = wheel.add(item, item.due_ns)
        await asyncio.sleep(0.4)
        assert (item.fired, list(wheel)) == (1, [item])
        wheel.remove(item, item.slot)
        assert wheel._slots == {}
        wheel.close()

    run_virtually(monkeypatch, main)


def test_a_deadline_long_past_still_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process was stopped for a while between sending and adding: that slot has been checked already.
    async def main(loop: VirtualLoop) -> None:
        fired: list[Watched] = []
        wheel = Deadlines(loop, fired.append)  # type: ignore[arg-type]
        keeps_it_turning = Watched(loop.now_ns() + 60 * NS_PER_S)
        keeps_it_turning.slot = wheel.add(keeps_it_turning, keeps_it_turning.due_ns)
        await asyncio.sleep(0.3)
        late = Watched(loop.now_ns() - 10 * NS_PER_S)
        late.slot = wheel.add(late, late.due_ns)
        await asyncio.sleep(0.4)
        assert fired == [late]
        wheel.close()

    run_virtually(monkeypatch, main)


def test_one_check_that_fails_does_not_stop_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        told: list[object] = []
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        fired: list[int] = []

        def check(item: Watched) -> None:
            fired.append(item.fired)
            if item.fired == 0:
                raise ZeroDivisionError

        wheel = Deadlines(loop, check)
        for number in range(3):
            wheel.add(Watched(loop.now_ns(), fired=number), loop.now_ns())
        wheel.add(Watched(loop.now_ns(), fired=3), loop.now_ns() + 3 * TICK_NS)
        await asyncio.sleep(0.6)
        assert sorted(fired) == [0, 1, 2, 3]
        assert [type(error) for error in told] == [ZeroDivisionError]
        assert list(wheel) == []

    run_virtually(monkeypatch, main)


def test_closing_the_wheel_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(loop: VirtualLoop) -> None:
        fired: list[Watched] = []
        wheel = Deadlines(loop, fired.append)  # type: ignore[arg-type]
        wheel.add(Watched(loop.now_ns()), loop.now_ns())
        wheel.close()
        await asyncio.sleep(0.25)
        assert fired == []

    run_virtually(monkeypatch, main)
