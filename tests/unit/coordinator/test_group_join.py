"""JoinGroup: who gets in, under which id, and when the join phase ends."""

from __future__ import annotations

from odradek.wire.errors import ErrorCode
from unit.coordinator.group_harness import GROUP, Harness


def test_a_dynamic_member_first_gets_an_id_and_joins_with_it() -> None:
    h = Harness()
    first = h.join(client="reader")
    assert first.error is ErrorCode.MEMBER_ID_REQUIRED
    assert first.response.member_id.startswith("reader-")
    second = h.join(first.response.member_id)
    assert second.waits
    h.advance(3_000)
    assert second.response.generation_id == 1
    assert second.response.leader == second.response.member_id == first.response.member_id
    assert [member.member_id for member in second.response.members] == [first.response.member_id]
    assert second.response.protocol_name == "range"
    assert second.response.protocol_type == "consumer"
    assert h.state() == "CompletingRebalance"
    h.finish([second])
    assert h.state() == "Stable"
    assert h.describe(GROUP).members[0].member_assignment == b"0"
