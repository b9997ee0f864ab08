"""Nodes that must not talk to each other, and bytes that make no sense, over real sockets."""

import asyncio
import re
from dataclasses import replace

import grpc
import grpc.aio

from interop.grpc_ends import (
    HOST,
    SETTINGS,
    WAIT_S,
    Leader,
    Seen,
    fetch,
    fetch_answer,
    identity,
    on_the_loop,
    up,
    vote,
)
from odradek.raft.grpc_transport import EXCHANGE
from odradek.replication.grpc_transport import FETCH
from odradek.rpc.settings import client_options

SECRET = b"a secret of the cluster"

# -- who is refused ----------------------------------------------------------------------------------------


@on_the_loop
async def test_a_node_of_another_cluster_is_refused_with_one_line_at_either_end(ends):
    one = await ends.start(1)
    stranger = await ends.start(2, who=identity(2, cluster="elsewhere"))
    stranger.knows(one)
    for _ in range(3):
        assert await stranger.ask(one).first() == [None]
    (at_one, *_) = await one.lines.first()
    assert at_one[0] == "another node was refused"
    assert "node 2 belongs to cluster elsewhere, node 1 to cluster cluster" in at_one[1]["reason"]
    assert [(event, values["node"]) for event, values in stranger.lines] == [
        ("another node is not who it should be", 1)
    ]
    assert at_one[1]["reason"] == stranger.lines[0][1]["reason"]
    assert not one.questions


@on_the_loop
async def test_nodes_that_know_one_secret_talk(ends):
    one, two = await ends.start(1, secret=SECRET), await ends.start(2, secret=SECRET)
    two.knows(one).send(one, vote())
    await one.messages.first()
    assert not one.lines and not two.lines


@on_the_loop
async def test_a_caller_that_does_not_know_the_secret_is_refused(ends):
    one = await ends.start(1, secret=SECRET)
    for secret in (b"", b"another secret"):
        stranger = await ends.start(2, secret=secret)
        stranger.knows(one)
        assert await stranger.ask(one).first() == [None]
        stranger.send(one, vote(2**31 - 1))
        ((_, values),) = await stranger.lines.first()
        assert "node 2 does not know the secret between nodes" in values["reason"]
    assert "node 2 does not know the secret between nodes" in one.lines[0][1]["reason"]
    assert not one.messages and not one.questions


@on_the_loop
async def test_a_node_that_does_not_know_the_secret_is_not_talked_to(ends):
    one, two = await ends.start(1), await ends.start(2, secret=SECRET)
    two.knows(one)
    assert await two.ask(one).first() == [None]
    assert "node 1 does not know the secret between nodes" in two.lines[0][1]["reason"]
    assert not one.questions


@on_the_loop
async def test_another_node_at_an_address_is_not_talked_to(ends):
    one, two = await ends.pair()
    one.net.set_controller(7, HOST, two.port)
    answers = Seen()
    one.net.controller.ask(7, 1, 1, b"", answers.append)
    assert await answers.first() == [None]
    ((event, values),) = one.lines
    assert (event, values["node"]) == ("another node is not who it should be", 7)
    assert values["reason"].startswith("at the address of node 7 answers node 2")
    assert not two.questions


@on_the_loop
async def test_a_second_node_with_an_id_that_is_connected_is_refused(ends):
    one, two = await ends.pair()
    two.send(one, vote())
    await one.messages.first()
    twin = await ends.start(2, who=identity(2, directory=b"another one     "))
    twin.knows(one)
    assert await twin.ask(one).first() == [None]
    assert "two nodes have node.id=2" in one.lines[0][1]["reason"]
    two.send(one, vote(2))
    await one.messages.first(2)


@on_the_loop
async def test_a_restarted_node_takes_the_place_of_the_stream_it_left_behind(ends):
    one, two = await ends.pair()
    two.send(one, fetch(1))
    (request,) = await one.messages.first()
    again = await ends.start(2, who=replace(identity(2), incarnation=b"again" + bytes(11)))
    again.knows(one)
    again.send(one, fetch(2))
    await one.messages.first(2)
    one.net.raft.send(request.sender, fetch_answer(1, 2))
    assert (await again.messages.first())[0].request_id == 2
    assert not two.messages


@on_the_loop
async def test_a_node_with_the_id_of_the_one_it_calls_is_refused(ends):
    one = await ends.start(1)
    channel = grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS))
    call = channel.stream_stream(EXCHANGE)(metadata=identity(1, directory=b"x" * 16).metadata())
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "two nodes have node.id=1" in await call.details()
    await channel.close()


@on_the_loop
async def test_somebody_who_is_no_node_is_refused(ends):
    one = await ends.start(1)
    async with grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS)) as channel:
        call = channel.stream_stream(EXCHANGE)()
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert re.search("not an Odradek node", one.lines[0][1]["reason"])


# -- what makes no sense -----------------------------------------------------------------------------------


@on_the_loop
async def test_bytes_that_are_no_message_end_the_stream_with_one_line(ends):
    one = await ends.start(1)
    async with grpc.aio.insecure_channel(f"{HOST}:{one.port}", options=client_options(SETTINGS)) as channel:
        for path in (EXCHANGE, FETCH, "/odradek.rpc.v1.Controller/Ask"):
            call = channel.stream_stream(path)(metadata=identity(2).metadata())
            await call.write(b"\xff\xff\xff")
            assert await asyncio.wait_for(call.code(), WAIT_S) is grpc.StatusCode.INVALID_ARGUMENT
    assert [line[0] for line in one.lines] == ["another node sent what makes no sense"] * 3
    assert [line[1]["node"] for line in one.lines] == [2, 2, 2]
    assert not one.messages
    assert not one.questions


@on_the_loop
async def test_a_follower_cannot_be_another_one(ends):
    one, two = await ends.pair()
    leader = Leader()
    one.net.replication.connect(2, leader).send(up(3))
    assert "INVALID_ARGUMENT" in (await leader.ends.first())[0]
    assert "calls itself follower 3" in two.lines[0][1]["reason"]
    assert two.followers[0].ups == []


@on_the_loop
async def test_a_message_over_the_limit_ends_the_stream_and_nothing_else(ends):
    one, two = await ends.pair()
    async with grpc.aio.insecure_channel(
        f"{HOST}:{one.port}", options=[("grpc.max_send_message_length", 64 << 20)]
    ) as channel:
        call = channel.stream_stream(EXCHANGE)(metadata=identity(3).metadata())
        await call.write(bytes(4 << 20))
        assert await asyncio.wait_for(call.code(), WAIT_S) is grpc.StatusCode.RESOURCE_EXHAUSTED
    two.send(one, vote())
    await one.messages.first()


@on_the_loop
async def test_a_damaged_batch_of_the_metadata_log_ends_the_stream_with_one_line(ends):
    one, two = await ends.pair()
    two.send(one, fetch(1))
    (request,) = await one.messages.first()
    answer = fetch_answer(100)
    data = bytearray(answer.batches[0].data)
    data[-20] ^= 1
    answer.batches = (answer.batches[0]._replace(data=data),)
    one.net.raft.send(request.sender, answer)
    ((event, values),) = await two.lines.first()
    assert event == "another node sent what makes no sense"
    assert "checksum" in values["reason"]
    assert not two.messages
