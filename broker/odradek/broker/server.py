"""A node on a real machine: sockets, event loop, clock, signals. The only part of the broker that touches asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from odradek.broker import logs as logging_setup
from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.connection import Connection, Transport
from odradek.broker.controller_process import ControllerProcess
from odradek.broker.descriptors import Descriptors, raise_limit, share_out
from odradek.broker.file_sender import IS_SUPPORTED, FileSender, FileSenders
from odradek.broker.health import Health
from odradek.broker.listeners import Listener
from odradek.broker.memory import tune_collector, tune_memory
from odradek.broker.metrics import BrokerMetrics
from odradek.broker.node import Node, Ports
from odradek.broker.open_logs import LogOpener
from odradek.broker.other_nodes import OtherNodes
from odradek.ports.disk import File, Syncer
from odradek.ports.timers import TimerQueue
from odradek.raft.metadata_log import CorruptMetadata
from odradek.storage.manager import LogManager
from odradek.storage.opening import RecoveryStopped
from odradek.storage.real_disk import RealDisk, ThreadSyncer

if TYPE_CHECKING:
    from odradek.broker.http_server import HttpServer
    from odradek.storage.log_cleaner import Workers

READY_TIMEOUT_S = 30.0
BACKLOG_MIN = 1024
"""Unless configured. With Kafka's 50, some of a hundred clients that reconnect at once wait a second for it."""
SYSTEM_BUFFER = -1
"""`socket.send.buffer.bytes` and `socket.receive.buffer.bytes`: what the system gives, and grows as it likes."""
LAST_ANSWERS_S = 0.1
"""How long a stopping node leaves its clients to take the answers to what it has already done."""
DRAIN_S = 2.0
"""How long a stopping node waits for responses to leave."""


class RealClock:
    """Monotonic time for deadlines, wall time for records."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class KafkaProtocol(asyncio.BufferedProtocol):
    """Glue: the loop's calls become the connection's."""

    __slots__ = (
        "_connection",
        "_files",
        "_send_buffer",
        "_unsent_max",
        "buffer_updated",
        "get_buffer",
        "pause_writing",
        "resume_writing",
    )

    def __init__(self, node: Node, listener: str, files: FileSenders | None) -> None:
        """`files`: how this listener's connections send parts of files; None: they do not, and send copies."""
        connection = self._connection = Connection(node, listener)
        self._unsent_max = node.config.odradek_connection_max_unsent_bytes
        self._send_buffer = node.config.socket_send_buffer_bytes
        self._files = files
        # Bound methods of the connection itself: no frame in between on the hot path.
        self.get_buffer = connection.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = connection.buffer_updated  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        duplex = cast(asyncio.Transport, transport)
        duplex.set_write_buffer_limits(high=self._unsent_max)
        sock = duplex.get_extra_info("socket")
        with contextlib.suppress(OSError):  # not a TCP socket, or already closed by the peer
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._send_buffer != SYSTEM_BUFFER:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        name = duplex.get_extra_info("peername") or ("?", 0)
        host = name[0].removeprefix("::ffff:")  # an IPv4 client of a dual-stack socket
        connection = self._connection
        files = None
        if self._files is not None:
            files = FileSender(self._files, sock.fileno(), connection.files_sent, connection.files_failed)
        connection.opened(cast(Transport, duplex), f"{host}:{name[1]}", files)

    def eof_received(self) -> bool:
        return self._connection.eof()

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.lost()


class LoopTimers:
    """Advances a TimerQueue from one timer of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timers: TimerQueue, after: Callable[[], Any]) -> None:
        self._loop = loop
        self._timers = timers
        self._after = after
        self._handle: asyncio.TimerHandle | None = None
        timers.on_earlier = lambda _deadline: self._arm()

    def _arm(self) -> None:
        deadline = self._timers.next_deadline_ms()
        if self._handle is not None:
            self._handle.cancel()
        if deadline is None:
            self._handle = None
            return
        delay = max(0.0, deadline / 1000 - time.monotonic())
        self._handle = self._loop.call_later(delay, self._run)

    def _run(self) -> None:
        self._handle = None
        # asyncio may be early by its clock's resolution: half a millisecond counts as due.
        self._timers.advance((time.monotonic_ns() + 500_000) // 1_000_000)
        self._after()
        self._arm()

    def start(self) -> None:
        self._arm()

    def stop(self) -> None:
        self._timers.on_earlier = None
        if self._handle is not None:
            self._handle.cancel()


class FlushingSyncer:
    """Completions come back as events of the node: what they staged is flushed after them."""

    def __init__(self, inner: Syncer) -> None:
        self._inner = inner
        self.after: Callable[[], Any] = lambda: None

    def sync(self, file: File, done: Callable[[OSError | None], None]) -> None:
        self._inner.sync(file, self._then(done))

    def run(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        self._inner.run(work, self._then(done))

    def _then(self, done: Callable[[OSError | None], None]) -> Callable[[OSError | None], None]:
        def completed(error: OSError | None) -> None:
            done(error)
            self.after()

        return completed


def run(config: BrokerConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. StartupError if the node cannot start."""
    began = time.monotonic()
    tune_memory()
    log = logging_setup.configure(config)
    try:
        import uvloop
    except ImportError:  # not on every platform; asyncio's own loop serves as well, slower
        return asyncio.run(_serve(config, log, began))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, log, began))


async def _serve(config: BrokerConfig, log: Any, began: float) -> int:
    """Probes are answered from before the logs are open until the node has gone."""
    sockets = _bind(config)
    clock = RealClock()
    health = Health(clock.monotonic_ms)
    http = await _start_http(config, health, log)
    try:
        return await _run_node(config, sockets, clock, health, http, log, began)
    finally:
        if http is not None:
            await http.close()


async def _run_node(
    config: BrokerConfig,
    sockets: list[tuple[Listener, socket.socket]],
    clock: RealClock,
    health: Health,
    http: HttpServer | None,
    log: Any,
    began: float,
) -> int:
    loop = asyncio.get_running_loop()
    fatal: asyncio.Future[BaseException | None] = loop.create_future()
    loop.set_exception_handler(lambda _loop, context: _on_error(context, log, fatal))
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, _settle, fatal)
    descriptors = share_out(raise_limit())
    config = replace(config, max_connections=min(config.max_connections, descriptors.connections))
    around = _Surroundings(config, clock, descriptors, log)
    try:
        logs = await _opened(around.opener(), clock, health, fatal)
    except RecoveryStopped:
        log.info("stopped before all logs were recovered")
        return 0
    node = await around.make_node(logs, fatal)
    try:
        servers: list[asyncio.Server] = []
        ready = loop.create_future()
        node.on_ready = lambda: _settle(ready)
        try:
            node.start({listener.name: sock.getsockname()[1] for listener, sock in sockets})
        except CorruptMetadata as damage:
            raise StartupError(str(damage)) from damage
        node.settle()
        around.loop_timers.start()
        health.node = node
        await _until_ready(node, ready, fatal, log)
        if not fatal.done():
            if isinstance(node, Node):
                servers = await _listen(loop, node, sockets, config, around.files)
            node.listening = True
            ports_bound = {listener.name: sock.getsockname()[1] for listener, sock in sockets}
            elapsed_ms = (time.monotonic() - began) * 1000
            logging_setup.startup_line(
                config, logs.cluster_id, elapsed_ms, ports_bound, http.port if http is not None else None, log
            )
        tune_collector()
        error = await fatal
    finally:
        around.stop_cleaning()
        await _shut_down(node, servers, [sock for _, sock in sockets], log)
        await around.close()
    if isinstance(error, StartupError):
        raise error
    if error is not None:
        log.error("the node stops after a fatal error", exc_info=error)
        return 1
    return 0


class _Surroundings:
    """What a node of this process stands on: disk, threads, timers, the ways to other nodes. `close` it last."""

    def __init__(self, config: BrokerConfig, clock: RealClock, descriptors: Descriptors, log: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._clock = clock
        self._descriptors = descriptors
        self._log = log
        self._disk = RealDisk()
        self._syncer = FlushingSyncer(ThreadSyncer(self._loop.call_soon_threadsafe))
        self._metadata_syncer = FlushingSyncer(ThreadSyncer(self._loop.call_soon_threadsafe))
        self._timers = TimerQueue()
        self._rng = random.SystemRandom()
        self._others: OtherNodes | None = None
        self._cleaners: list[Workers] = []
        self.files: FileSenders | None = None
        self.node: Node | ControllerProcess
        self.loop_timers: LoopTimers

    def opener(self) -> LogOpener:
        files_max = self._descriptors.segment_files
        return LogOpener(self._config, self._disk, self._syncer, self._rng, files_max, self._log)

    async def make_node(
        self, logs: LogManager, fatal: asyncio.Future[BaseException | None]
    ) -> Node | ControllerProcess:
        """Not started. StartupError."""

        def stop(reason: str) -> None:
            if not fatal.done():
                fatal.set_result(StartupError(reason))

        config, log = self._config, self._log
        metadata_dir = _metadata_dir(config, logs)
        ports = Ports(
            self._disk, self._syncer, self._metadata_syncer, self._clock, self._timers, self._rng, log, _disk_space,
            cleaners=self._make_cleaners,
        )  # fmt: skip
        if not config.alone:
            nodes = self._descriptors.nodes
            self._others = await OtherNodes.start(config, logs, metadata_dir, nodes, self._rng, log)
            self._others.on_expelled = stop
            ports = replace(ports, peers=self._others.ports)
        kind: type[Node] | type[ControllerProcess] = Node if "broker" in config.roles else ControllerProcess
        node = self.node = kind(config, ports, logs, BrokerMetrics(), metadata_dir)
        node.listening = False
        node.on_fatal = stop
        if self._others is not None:
            self._others.serve(node)
        self._syncer.after = self._metadata_syncer.after = node.settle
        self.loop_timers = LoopTimers(self._loop, self._timers, node.settle)
        if IS_SUPPORTED:
            self.files = FileSenders(self._loop, self._descriptors.file_senders)
        return node

    def _make_cleaners(self) -> Workers:
        from odradek.broker.cleaner_processes import CleanerProcesses

        self._cleaners.append(CleanerProcesses(self._loop.call_soon_threadsafe, self.node.settle))
        return self._cleaners[-1]

    def stop_cleaning(self) -> None:
        for each in self._cleaners:
            each.close()

    async def close(self) -> None:
        self.loop_timers.stop()
        if self.files is not None:
            self.files.close()
        if self._others is not None:
            await self._others.stop()


async def _until_ready(
    node: Node | ControllerProcess, ready: asyncio.Future[Any], fatal: asyncio.Future[Any], log: Any
) -> None:
    """A node of a cluster waits for a majority of the others as long as it takes, and says so."""
    while True:
        await asyncio.wait((ready, fatal), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() or fatal.done():
            return
        reasons = "; ".join(node.readiness()[1])
        if node.config.alone:
            raise StartupError(f"not ready after {READY_TIMEOUT_S:.0f} s: {reasons}")
        log.warning("still waiting for the cluster", missing=reasons)


def _settle(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def _bind(config: BrokerConfig) -> list[tuple[Listener, socket.socket]]:
    """Sockets of every listener, bound but not yet listening: the port is ours before anything is written."""
    bound: list[tuple[Listener, socket.socket]] = []
    receive_buffer = config.socket_receive_buffer_bytes
    if "socket.receive.buffer.bytes" not in config.static:
        # Kafka's 100 KB means more and smaller reads: produce in batches of 16 KB costs 1.7 times the CPU.
        receive_buffer = SYSTEM_BUFFER
    for listener in config.listeners:
        try:
            bound.append((listener, _bind_one(listener, receive_buffer)))
        except OSError as error:
            for _, sock in bound:
                sock.close()
            raise _port_taken(listener, error) from error
    return bound


def _port_taken(listener: Listener, error: OSError) -> StartupError:
    where = f"{listener.host or '*'}:{listener.port}"
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            f"cannot listen on {where}: the port is in use. Stop what has it, or choose another with --port, "
            "or in listeners"
        )
    return StartupError(f"cannot listen on {where}: {error.strerror or error}")


def _bind_one(listener: Listener, receive_buffer: int) -> socket.socket:
    """Bound, and listening only when the node is ready: until then clients are refused and try another node."""
    host = listener.host
    if ":" in host or (not host and socket.has_dualstack_ipv6()):
        sock = socket.socket(socket.AF_INET6)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
    else:
        sock = socket.socket(socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if (
            receive_buffer != SYSTEM_BUFFER
        ):  # its connections inherit it; they settle their window on connecting
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.bind((host, listener.port))
    except OSError:
        sock.close()
        raise
    return sock


async def _opened(
    opener: LogOpener, clock: RealClock, health: Health, stop: asyncio.Future[Any]
) -> LogManager:
    """In a thread, so that probes and signals are heard: after a crash it may take minutes. Nothing else runs then."""
    health.counts = opener.logs.recovery
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, opener.run, clock.wall_ms(), health.recovery.progress)
    await asyncio.wait({opening, stop}, return_when=asyncio.FIRST_COMPLETED)
    if not opening.done():
        opener.stop()
    return await opening


async def _listen(
    loop: asyncio.AbstractEventLoop,
    node: Node,
    sockets: list[tuple[Listener, socket.socket]],
    config: BrokerConfig,
    files: FileSenders | None,
) -> list[asyncio.Server]:
    backlog = config.socket_listen_backlog_size
    if "socket.listen.backlog.size" not in config.static:
        backlog = max(backlog, BACKLOG_MIN)
    servers = []
    for listener, sock in sockets:

        def protocol(name: str = listener.name) -> KafkaProtocol:
            return KafkaProtocol(node, name, files)

        try:
            server = await loop.create_server(protocol, sock=sock, backlog=backlog)
        except OSError as error:
            raise _port_taken(listener, error) from error
        servers.append(server)
    return servers


def _metadata_dir(config: BrokerConfig, logs: LogManager) -> str:
    """The metadata log's directory: one of the log directories, which are locked. StartupError otherwise."""
    path = os.path.abspath(config.metadata_dir)
    if all(data_dir.path != path for data_dir in logs.dirs):
        raise StartupError(f"metadata.log.dir={path} must be one of log.dirs")
    return path


def _disk_space(directory: str) -> tuple[int, int]:
    status = os.statvfs(directory)
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


async def _start_http(config: BrokerConfig, health: Health, log: Any) -> HttpServer | None:
    if config.odradek_metrics_port < 0:
        return None
    from odradek.broker.http_server import HttpServer

    return await HttpServer.start(config, health, log)


async def _shut_down(
    node: Node | ControllerProcess, servers: list[asyncio.Server], sockets: list[socket.socket], log: Any
) -> None:
    """Stop accepting, let responses leave, then make everything durable."""
    left = asyncio.Event()
    node.leave(left.set)
    await left.wait()
    for server in servers:
        server.close()
    for sock in sockets:
        sock.close()
    node.stopping = True
    for connection in list(node.connections):
        connection.stop_reading()
    if node.connections:
        # Clients that find an answer and the end of the connection at once may take only the end (kafka-python).
        await asyncio.sleep(LAST_ANSWERS_S)
    for connection in list(node.connections):
        connection.close()
    if node.connections:
        drained = asyncio.Event()
        node.on_drained = drained.set
        # A peer that does not read does not keep the node from stopping.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(drained.wait(), DRAIN_S)
    node.stop()
    log.info("stopped")


def _on_error(context: dict[str, Any], log: Any, fatal: asyncio.Future[BaseException | None]) -> None:
    """An exception nobody caught is our bug, and the state behind it unknown: the node ends."""
    error = context.get("exception")
    if isinstance(error, Exception) and not fatal.done():
        fatal.set_result(error)
    else:
        log.error("event loop", message=context.get("message"))


if __name__ == "__main__":
    sys.exit("run `odradek start`")
