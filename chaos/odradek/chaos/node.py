"""A node that can be hurt from outside: `python -m odradek.chaos.node server FILE` is `odradek server FILE`, and more.

Used by runs whose faults the operating system has no handle for: local ones, and with `container` in place of
`server FILE` those of deploy/compose/chaos.yaml. Beside the node's `server.properties`, or in CONTAINER_PLACE, may lie
- `chaos.json`, read once: `peers` (another node → port of the proxy on the way there), `overrides` (arguments
  for `--override`)
- `faults.json`, read whenever it changes: `disk` ({"mode": "slow" | "failing" | "full", "write_ms", "fsync_ms"}),
  `clock_offset_s`: what the wall clock of the process is ahead

Nothing of this is in a node that is started in any other way. The clock is that of Python's code (`time.time`): gRPC's
own C code keeps the machine's.
"""

from __future__ import annotations

import errno
import json
import os
import runpy
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOOK_S = 0.02
FAULTS = "faults.json"
CONTAINER_PLACE = Path("/var/lib/kafka/chaos")
"""A volume of its own: the fault outlives the process, and an empty data directory."""


def tell(place: Path, told: Mapping[str, Any]) -> None:
    """What is wrong from now on, to the node that looks there. OSError."""
    fresh = place / "faults.tmp"
    fresh.write_text(json.dumps(told))
    fresh.replace(place / FAULTS)


class Hurt:
    """What is wrong right now. Read by every thread of the node, changed by one."""

    def __init__(self) -> None:
        self.disk: dict[str, Any] = {}
        self.clock_offset_ns = 0

    def write(self) -> None:
        """Before something is written. OSError."""
        mode = self.disk.get("mode")
        if mode == "slow":
            time.sleep(self.disk["write_ms"] / 1000)
        elif mode == "failing":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        elif mode == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        """Before an fsync. OSError."""
        mode = self.disk.get("mode")
        if mode == "slow":
            time.sleep(self.disk["fsync_ms"] / 1000)
        elif mode == "failing":
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def follow(path: Path, hurt: Hurt) -> None:
    """For a thread of its own: what the file says, as soon as it says so."""
    seen = 0
    while True:
        try:
            changed = path.stat().st_mtime_ns
            if changed != seen:
                found = json.loads(path.read_text())
                hurt.disk = found.get("disk", {})
                hurt.clock_offset_ns = int(found.get("clock_offset_s", 0) * 1e9)
                seen = changed
        except OSError:
            pass  # no fault was ever asked for
        time.sleep(LOOK_S)


def hurt_disk(hurt: Hurt) -> None:
    """Every file and directory of the node."""
    from odradek.ports.disk import Buffer
    from odradek.storage import real_disk

    whole = real_disk.RealDisk

    class HurtFile(real_disk.RealFile):
        __slots__ = ()

        def append(self, buffers: Sequence[Buffer]) -> int:
            if hurt.disk:
                if hurt.disk.get("mode") == "full":  # as much as there was room for: half of it
                    os.write(self._fd, bytes(memoryview(buffers[0]))[: len(buffers[0]) // 2])
                hurt.write()
            return super().append(buffers)

        def pwrite(self, data: Buffer, position: int) -> None:
            hurt.write()
            super().pwrite(data, position)

        def sync(self) -> None:
            hurt.sync()
            super().sync()

    class HurtDisk(whole):  # type: ignore[valid-type, misc]
        def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> HurtFile:
            if (create or exclusive) and not os.path.exists(path):
                hurt.write()
            file = super().open(path, create=create, exclusive=exclusive)
            file.close()
            return HurtFile(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)

        def write_file_atomic(self, path: str, data: bytes, *, durable: bool) -> None:
            hurt.write()
            if durable:
                hurt.sync()
            super().write_file_atomic(path, data, durable=durable)

        def sync_dir(self, path: str) -> None:
            hurt.sync()
            super().sync_dir(path)

    real_disk.RealDisk = HurtDisk  # type: ignore[misc]


def hurt_clock(hurt: Hurt) -> None:
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + hurt.clock_offset_ns / 1e9
    time.time_ns = lambda: real_time_ns() + hurt.clock_offset_ns


def send_by_proxies(ports: dict[int, int]) -> None:
    """Other nodes are found at their proxies."""
    from odradek.rpc.peers import Peers

    set_address = Peers.set_address

    def at_proxy(self: Peers, node_id: int, host: str, port: int) -> None:
        if node_id in ports:
            set_address(self, node_id, "127.0.0.1", ports[node_id])
        else:
            set_address(self, node_id, host, port)

    Peers.set_address = at_proxy  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Never returns: ends the process as `odradek` does."""
    place = CONTAINER_PLACE if arguments[0] == "container" else Path(arguments[1]).parent
    hurt = Hurt()
    threading.Thread(target=follow, args=(place / FAULTS, hurt), daemon=True).start()
    hurt_clock(hurt)
    hurt_disk(hurt)
    more: list[str] = []
    if (settings := place / "chaos.json").exists():
        found = json.loads(settings.read_text())
        send_by_proxies({int(node): port for node, port in found.get("peers", {}).items()})
        for override in found.get("overrides", []):
            more += ["--override", override]
    sys.argv = ["odradek", *arguments, *more]
    runpy.run_module("odradek.cli.main", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
