"""Messages of replication as bytes, and bytes that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.replication.grpc_transport import decode_down, decode_up, encode_down, encode_up
from odradek.replication.messages import STATES_MAX, FetchData, FetchDown, FetchState, FetchUp
from odradek.rpc.framing import MalformedFrame, parse
from odradek.rpc.v1 import replication_pb2 as pb
from odradek.wire.errors import ErrorCode

int32 = st.integers(-(1 << 31), (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
natural32 = st.integers(0, (1 << 31) - 1)
natural64 = st.integers(0, (1 << 63) - 1)
topic_id = st.binary(min_size=16, max_size=16)

states = st.builds(FetchState, topic_id, natural32, int32, natural64, int32, natural64, int64)
ups = st.builds(FetchUp, natural32, int64, int64, natural64, st.lists(states, max_size=4).map(tuple))
data = st.builds(
    FetchData,
    topic_id,
    natural32,
    int32,
    int64,
    st.sampled_from(ErrorCode),
    st.none() | st.tuples(int32, int64),
    int64,
    int64,
    int64,
    st.binary(max_size=400),
)
downs = st.builds(FetchDown, int64, st.lists(data, max_size=4).map(tuple))


@given(ups)
def test_what_goes_up_is_read_as_it_was_written(message):
    assert decode_up(parse(pb.FetchUp, encode_up(message))) == message


@given(downs)
def test_what_goes_down_is_read_as_it_was_written(message):
    assert decode_down(parse(pb.FetchDown, encode_down(message))) == message


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 1 << 20, (1 << 21) + 1])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_batches_of_any_size_and_kind_of_buffer(size, kind):
    batches = bytes(range(256)) * (size // 256) + bytes(size % 256)
    message = FetchDown(1, (FetchData(b"t" * 16, 0, 5, 1, ErrorCode.NONE, None, 9, 0, 3, kind(batches)),) * 2)
    read = decode_down(parse(pb.FetchDown, encode_down(message)))
    assert [entry.batches for entry in read.data] == [batches, batches]


def state(**changes):
    return pb.FetchUp(states=[pb.FetchState(**({"topic_id": b"t" * 16} | changes))])


@pytest.mark.parametrize(
    "bad",
    [
        state(topic_id=b"short"),
        state(partition=-1),
        state(fetch_offset=-1),
        state(log_start_offset=-1),
        pb.FetchUp(credit_bytes=-1),
        pb.FetchUp(states=[pb.FetchState()] * (STATES_MAX + 1)),
    ],
)
def test_nonsense_of_a_follower_is_malformed(bad):
    with pytest.raises(MalformedFrame):
        decode_up(bad)


@pytest.mark.parametrize(
    "bad",
    [
        pb.FetchDown(data=[pb.FetchData(topic_id=b"short")]),
        pb.FetchDown(data=[pb.FetchData(topic_id=b"t" * 16, partition=-1)]),
        pb.FetchDown(data=[pb.FetchData(topic_id=b"t" * 16, error=31_000)]),
        pb.FetchDown(data=[pb.FetchData(topic_id=b"t" * 16)] * (STATES_MAX + 1)),
    ],
)
def test_nonsense_of_a_leader_is_malformed(bad):
    with pytest.raises(MalformedFrame):
        decode_down(bad)
