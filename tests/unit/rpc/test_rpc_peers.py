"""Addresses that peers and operators tell."""

import asyncio

import pytest

from odradek.rpc.identity import NodeIdentity
from odradek.rpc.peers import Peers, Unreachable
from odradek.rpc.streams import LocalNode

ME = NodeIdentity("prod-1", 1, b"d" * 16, b"i" * 16)


@pytest.mark.parametrize("host", ["x" * 300, "a\0b", "é" * 100, "a..b", ""])
def test_what_cannot_be_the_name_of_a_host_is_not_reached_and_nothing_else_happens(host: str) -> None:
    failures: list[object] = []

    async def look() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        peers = Peers(LocalNode(ME, lambda *_args, **_values: None))
        peers.set_address(2, host, 1)
        with pytest.raises(Unreachable):
            await peers.open(2, "/odradek.rpc.v1.Raft/Greet")
        peers.watch(2)
        await asyncio.sleep(0.02)
        await peers.close()

    asyncio.run(look())
    assert failures == []
