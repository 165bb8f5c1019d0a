"""The one heap."""

from __future__ import annotations

from datetime import timedelta

from tests.support.clock import START
from tickless.core.timers import TimeoutDue, TimerHeap
from tickless.model.id import AttemptId


def _timer(number: int) -> TimeoutDue:
    return TimeoutDue(AttemptId(number))


def _at(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_an_empty_heap_is_never_due() -> None:
    heap = TimerHeap()
    assert heap.next_due_at() is None
    assert list(heap.pop_due(START)) == []


def test_what_is_due_comes_out_earliest_first_and_ties_in_the_order_of_arming() -> None:
    heap = TimerHeap()
    for seconds, number in ((2, 1), (1, 2), (1, 3), (3, 4)):
        heap.arm(START + _at(seconds), _timer(number))
    assert list(heap.pop_due(START + _at(2))) == [_timer(2), _timer(3), _timer(1)]
    assert heap.next_due_at() == START + _at(3)
    assert len(heap) == 1


def test_a_reader_may_stop_half_way_and_loses_nothing() -> None:
    heap = TimerHeap()
    for number in range(3):
        heap.arm(START, _timer(number))
    assert next(heap.pop_due(START)) == _timer(0)
    assert heap.entries() == [(START, _timer(1)), (START, _timer(2))]


def test_a_timer_armed_while_others_are_popped_is_seen() -> None:
    heap = TimerHeap()
    heap.arm(START, _timer(1))
    seen = []
    for timer in heap.pop_due(START):
        seen.append(timer)
        if len(seen) < 3:
            heap.arm(START, _timer(len(seen) + 1))
    assert seen == [_timer(1), _timer(2), _timer(3)]
