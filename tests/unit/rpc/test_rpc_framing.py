"""Frames larger than one message travel in parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.rpc.framing import Assembler, MalformedFrame, parse, split
from odradek.rpc.v1.common_pb2 import Part, PartFrame
from odradek.rpc.v1.controller_pb2 import Answer, Question
from odradek.rpc.v1.raft_pb2 import RaftFrame
from odradek.rpc.v1.replication_pb2 import FetchDown, FetchUp


def test_a_frame_that_fits_travels_as_it_is():
    assert split(b"x" * 100, 100) == [b"x" * 100]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 50))
def test_parts_put_together_are_the_frame(frame, message_bytes_max):
    messages = split(frame, message_bytes_max)
    if len(frame) <= message_bytes_max:
        assert messages == [frame]
        return
    assembler = Assembler(1000)
    whole = [assembler.add(parse(PartFrame, message).part) for message in messages]
    assert whole == [None] * (len(messages) - 1) + [frame]
    assert max(map(len, messages)) <= message_bytes_max + 20


@pytest.mark.parametrize("kind", [RaftFrame, Question, Answer, FetchUp, FetchDown])
def test_every_frame_reads_a_part(kind):
    first, _last = split(b"x" * 15, 10)
    frame = parse(kind, first)
    assert frame.HasField("part")
    assert frame.part.data == b"x" * 10


def test_one_assembler_takes_frame_after_frame():
    assembler = Assembler(10)
    for _ in range(3):
        assert assembler.add(Part(data=b"01234")) is None
        assert assembler.add(Part(data=b"56789", last=True)) == b"0123456789"


def test_a_frame_without_end_is_refused_when_it_passes_the_bound():
    assembler = Assembler(10)
    assembler.add(Part(data=b"0" * 10))
    with pytest.raises(MalformedFrame, match="more than 10 bytes"):
        assembler.add(Part(data=b"0"))


def test_an_empty_part_is_refused():
    with pytest.raises(MalformedFrame):
        Assembler(10).add(Part())


def test_bytes_of_something_else_are_malformed():
    with pytest.raises(MalformedFrame, match="3 bytes are no RaftFrame"):
        parse(RaftFrame, b"\xff\xff\xff")
