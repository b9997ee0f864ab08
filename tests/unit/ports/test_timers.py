"""The timer queue: order, cancelling, and what its driver is told."""

from __future__ import annotations

from odradek.ports.timers import TimerQueue


def test_timers_run_in_order_of_deadline_then_of_scheduling() -> None:
    queue, ran = TimerQueue(), []
    for name, deadline in (("c", 30), ("a", 10), ("b1", 20), ("b2", 20)):
        queue.at(deadline, lambda now, name=name: ran.append((name, now)))
    assert queue.next_deadline_ms() == 10
    assert queue.advance(9) == 0
    assert queue.advance(20) == 3
    assert ran == [("a", 20), ("b1", 20), ("b2", 20)]
    assert (len(queue), queue.next_deadline_ms()) == (1, 30)


def test_a_timer_may_schedule_another_that_is_due_at_once() -> None:
    queue, ran = TimerQueue(), []

    def first(now: int) -> None:
        ran.append("first")
        queue.at(now, lambda now: ran.append("second"))

    queue.at(5, first)
    assert queue.advance(5) == 2
    assert ran == ["first", "second"]


def test_a_cancelled_timer_does_not_run_and_cancelling_again_is_nothing() -> None:
    queue, ran = TimerQueue(), []
    timer = queue.at(5, ran.append)
    kept = queue.at(6, ran.append)
    timer.cancel()
    timer.cancel()
    assert (timer.active, kept.active, len(queue)) == (False, True, 1)
    assert queue.next_deadline_ms() == 6
    queue.advance(10)
    assert ran == [10]
    kept.cancel()
    assert len(queue) == 0


def test_the_driver_hears_of_earlier_deadlines_only() -> None:
    queue, heard = TimerQueue(), []
    queue.on_earlier = heard.append
    for deadline in (50, 60, 40, 40, 45):
        queue.at(deadline, lambda now: None)
    assert heard == [50, 40]


def test_cancelled_timers_do_not_pile_up() -> None:
    queue = TimerQueue()
    queue.at(1, lambda now: None)
    for _ in range(10_000):
        queue.at(1_000_000, lambda now: None).cancel()
    assert len(queue) == 1
    assert len(queue._heap) < 200
