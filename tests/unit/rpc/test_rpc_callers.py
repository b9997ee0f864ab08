"""Which of several processes with one node id is served."""

from __future__ import annotations

import pytest

from odradek.rpc.callers import NODES_MAX, REFUSAL_PAUSE_S, Callers
from odradek.rpc.identity import Mismatch, NodeIdentity

ME = NodeIdentity("cluster", 1, b"d" * 16, b"i" * 16)


def node(node_id: int, process: int = 1, directory: int = 1) -> NodeIdentity:
    return NodeIdentity("cluster", node_id, bytes([directory]) * 16, process.to_bytes(16, "big"))


def test_a_second_directory_waits_until_the_first_is_gone() -> None:
    callers = Callers(ME)
    callers.admit(node(3))
    with pytest.raises(Mismatch, match=r"two nodes have node\.id=3"):
        callers.admit(node(3, process=2, directory=2))
    callers.ended(node(3))
    callers.admit(node(3, process=2, directory=2))


def test_a_restarted_process_is_served_at_once_and_the_one_before_never_again() -> None:
    callers = Callers(ME)
    callers.admit(node(3))
    callers.admit(node(3, process=2))
    for _ in range(2):
        with pytest.raises(Mismatch, match="another process has been started as node 3 since"):
            callers.admit(node(3))
    callers.ended(node(3))
    callers.ended(node(3, process=2))
    with pytest.raises(Mismatch, match="stop the older one"):
        callers.admit(node(3))
    callers.admit(node(3, process=2))


def test_a_node_may_find_itself_and_nobody_else_may_have_its_id() -> None:
    callers = Callers(ME)
    callers.admit(ME)
    callers.ended(ME)
    with pytest.raises(Mismatch, match=r"two nodes have node\.id=1"):
        callers.admit(node(1))


def test_the_same_refusal_is_told_once_a_minute() -> None:
    callers = Callers(ME)
    told = [callers.is_news("two nodes", second) for second in range(int(2 * REFUSAL_PAUSE_S))]
    assert [index for index, each in enumerate(told) if each] == [0, int(REFUSAL_PAUSE_S)]
    assert callers.is_news("another", 0.0)


def test_ids_of_strangers_are_bounded() -> None:
    callers = Callers(ME)
    for node_id in range(2, NODES_MAX + 2):
        callers.admit(node(node_id))
    with pytest.raises(Mismatch, match="connected already"):
        callers.admit(node(NODES_MAX + 2))
    callers.ended(node(2))
    callers.admit(node(NODES_MAX + 2))
