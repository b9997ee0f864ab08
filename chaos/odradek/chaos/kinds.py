"""Every fault there is: what it does, what a scenario may say about it, what it asks of a target.

The words of a scenario file are these words; `scenario.py` refuses others.
"""

from __future__ import annotations

from dataclasses import dataclass

PROCESS, NETWORK, DISK, DAMAGE, CLOCK, CLIENTS = "process", "network", "disk", "damage", "clock", "clients"
LEADERS = "leaders"
OF_NO_NODE = frozenset({CLIENTS, LEADERS})
"""Done to no node, and possible with every target."""

WHO = {
    "leader": "leads a partition of the topic that idempotent producers write to",
    "follower": "has a replica of it and does not lead it",
    "coordinator": "leads a partition of __consumer_offsets",
    "controller": "the active controller",
    "any": "a broker, drawn from the seed",
    "drawn": "one of the four above, drawn from the seed",
    "all": "every broker",
    "each": "every broker, one after the other",
    "controllers": "a majority of the controllers",
}
GROUPS_OF_NODES = frozenset({"all", "each", "controllers"})


@dataclass(frozen=True, slots=True)
class Kind:
    """`needs`: what of a target. `lasts`: it is undone after `for_s`. `stops`: its victim does not serve meanwhile."""

    text: str
    needs: str
    keys: tuple[str, ...] = ()
    lasts: bool = True
    stops: bool = False


KINDS: dict[str, Kind] = {
    "kill": Kind("kill -9; started again afterwards", PROCESS, stops=True),
    "pause": Kind("SIGSTOP, then SIGCONT", PROCESS, stops=True),
    "restart": Kind("stopped in order and started again", PROCESS, lasts=False),
    "isolate": Kind("no byte between the node and the others, either way", NETWORK),
    "one-way": Kind("bytes in one direction are lost: `direction` out of the node, or in", NETWORK, ("direction",)),
    "bridge": Kind("the node is the only one that reaches everybody", NETWORK),
    "cut-followers": Kind("the node is cut from the other brokers, not from the controllers", NETWORK),
    "delay": Kind(
        "bytes come `delay_ms` later, give or take `jitter_ms`", NETWORK, ("delay_ms", "jitter_ms", "clients")
    ),
    "loss": Kind(
        "a share `loss` of what is sent has to be sent again; one in a hundred of these ends a connection",
        NETWORK,
        ("loss", "clients"),
    ),
    "bandwidth": Kind("no more than `kb_per_s` pass in each direction", NETWORK, ("kb_per_s", "clients")),
    "slow-disk": Kind("every write takes `write_ms` longer, every fsync `fsync_ms`", DISK, ("write_ms", "fsync_ms")),
    "failing-disk": Kind("writes and fsyncs fail with EIO", DISK, stops=True),
    "full-disk": Kind("no space is left", DISK, stops=True),
    "torn-tail": Kind("kill -9; the newest segments end in half a batch that nobody was told of", DAMAGE, stops=True),
    "flipped-byte": Kind("kill -9, and a byte in the middle of a log is another", DAMAGE, stops=True),
    "wiped-disk": Kind("kill -9, and the data directory is empty", DAMAGE, stops=True),
    "clock-jump": Kind("the wall clock of the node jumps by `offset_s`, and back", CLOCK, ("offset_s",)),
    "move-leaders": Kind("another replica leads, of every partition that clients work on", LEADERS, lasts=False),
    "freeze-client": Kind("a consumer stops in its tracks, with its connections open", CLIENTS),
}  # fmt: skip

NETWORK_KINDS = frozenset(name for name, kind in KINDS.items() if kind.needs == NETWORK)
CLIENT_PREFIXES = ("writers", "transactions", "movers", "classic", "consumer", "static", "readers", "slow")
