"""Latest and committed views against plain dictionaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from odradek.coordinator.timeline import IDLE, Timeline, TimelineDict

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 4), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("commit"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("revert"), st.integers(0, 3), st.just(0)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_both_views_are_those_of_a_list_of_snapshots(operations: list[tuple[str, int, int]]) -> None:
    timeline = Timeline()
    table: TimelineDict[int, int] = TimelineDict(timeline)
    snapshots: list[dict[int, int]] = [{}]  # the committed one, then one for each pending write
    first_pending = 1
    for verb, number, value in operations:
        pending = len(snapshots) - 1
        if verb in ("set", "remove"):
            timeline.writing = first_pending + pending
            latest = dict(snapshots[-1])
            if verb == "set":
                table[number] = value
                latest[number] = value
            else:
                table.remove(number)
                latest.pop(number, None)
            snapshots.append(latest)
        elif verb == "commit":
            count = min(number, pending)
            timeline.commit(first_pending + count - 1)
            del snapshots[:count]
            first_pending += count
        else:
            count = min(number, pending)
            timeline.revert(first_pending + pending - count)
            del snapshots[len(snapshots) - count :]
        timeline.writing = IDLE
        assert dict(table.items()) == snapshots[-1]
        assert dict(table.committed_items()) == snapshots[0]
        assert all(table.get(key) == snapshots[-1].get(key) for key in range(5))
        assert all(table.get_committed(key) == snapshots[0].get(key) for key in range(5))
        assert table.is_void() == (not snapshots[0] and len(timeline) == 0)


def test_while_replaying_everything_is_committed_at_once() -> None:
    table: TimelineDict[str, int] = TimelineDict(Timeline())
    table["a"] = 1
    table["b"] = 2
    table.remove("a")
    table.remove("never")
    assert dict(table.committed_items()) == {"b": 2}
    assert sorted(table.values()) == [2]


def test_a_change_outside_of_a_write_is_our_bug() -> None:
    timeline = Timeline()
    timeline.writing = IDLE
    table: TimelineDict[str, int] = TimelineDict(timeline)
    try:
        table["a"] = 1
    except AssertionError:
        return
    raise RuntimeError("changed")
