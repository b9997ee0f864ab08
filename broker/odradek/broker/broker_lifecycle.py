"""A broker's life with the controller (Kafka's BrokerLifecycleManager): registration, heartbeats, controlled shutdown.

state       | enters by                                    | does
registering | start; an answer that knows no such broker   | BrokerRegistration until it is accepted
fenced      | registered                                   | a heartbeat every 50 ms, until caught up with metadata
unfenced    | a heartbeat's answer                         | a heartbeat every `broker.heartbeat.interval.ms`
in doubt    | `doubt`: the process did not run for so long | the same; nothing is served until the controller says,
            | that its session may be over                 | asked since, that this broker is not fenced
leaving     | `leave`                                      | asks to go, until the controller lets it, or time is up
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from odradek.wire.errors import ErrorCode
from odradek.wire.messages.broker_heartbeat import BrokerHeartbeatRequest, BrokerHeartbeatResponse
from odradek.wire.messages.broker_registration import (
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    Listener,
)

if TYPE_CHECKING:
    from odradek.broker.config import BrokerConfig
    from odradek.broker.node import Ports
    from odradek.controller.controller_node import MetadataQuorum
    from odradek.storage.manager import LogManager

REPLICATION_LISTENER = "REPLICATION"
"""Name under which a broker registers where other nodes reach it."""
REGISTER_AGAIN_MS = 200
REGISTRATION_TIMEOUT = "initial.broker.registration.timeout.ms"
REGISTRATION_TIMEOUT_MS = 60_000
"""Kafka's default. The session of a process that is gone ends long before."""
FOREVER = frozenset((ErrorCode.INCONSISTENT_CLUSTER_ID, ErrorCode.UNSUPPORTED_VERSION))
"""Refusals that waiting does not change."""
HEARTBEAT_SOON_MS = 50
LEAVE_MS_MAX = 10_000
LEAVE_UNANSWERED_MS = 2_000
"""A leaving broker waits that long for a controller: when all nodes are told to stop, the last ones find none."""
LEAVE_CHECK_MS = 100


class BrokerLifecycle:
    """Owned by the node. `broker_epoch` is -1 until registered; `unfenced` tells whether clients are served."""

    def __init__(
        self,
        config: BrokerConfig,
        ports: Ports,
        logs: LogManager,
        quorum: MetadataQuorum,
        *,
        metadata_offset: Callable[[], int],
        on_registered: Callable[[int], None],
        on_unfenced: Callable[[], None],
        on_refused: Callable[[str], None],
        on_trusted: Callable[[], None],
    ) -> None:
        """`metadata_offset`: up to where this broker has applied metadata. `on_registered(broker_epoch)` comes with
        every registration, `on_unfenced` whenever the broker becomes so, `on_trusted` when a doubt is over.
        `on_refused(reason)`: it never will be registered.
        """
        self.broker_epoch = -1
        self.unfenced = False
        self._config = config
        self._logs = logs
        self._quorum = quorum
        self._peer_port = ports.peers.port if ports.peers is not None else None
        self._monotonic_ms = ports.clock.monotonic_ms
        self._timers = ports.timers
        self._warn = ports.log.warning
        self._metadata_offset = metadata_offset
        self._on_registered = on_registered
        self._on_unfenced = on_unfenced
        self._on_refused = on_refused
        self._refused_since_ms = -1
        self._refused_with = ErrorCode.NONE
        self._on_trusted = on_trusted
        self._incarnation = ports.rng.randbytes(16)
        self._bound_ports: dict[str, int] = {}
        self._beating = False
        self._stopped = False
        self._shut_down: Callable[[], None] | None = None
        """Told when this broker may go: it is leaving."""
        self._left = False
        self._beats = 0
        self._doubted_at = -1
        """Number of the last heartbeat that was sent before the present doubt; -1: there is none."""
        self._doubted_ms = 0
        self._answered_ms = 0
        """When a controller last answered a heartbeat."""

    def start(self, bound_ports: dict[str, int]) -> None:
        """Register. `bound_ports`: of the listeners that were configured without one."""
        self._bound_ports = bound_ports
        patience = self._config.static.get(REGISTRATION_TIMEOUT)
        if patience is not None:  # without it a node waits for the others as long as it takes
            self._timers.at(self._monotonic_ms() + int(patience), lambda _now: self._not_registered(patience))
        self._register()

    def stop(self) -> None:
        self._stopped = True

    # -- registration --------------------------------------------------------------------------------------------

    def _ask(self, request: Any, done: Callable[[Any], None]) -> None:
        self._quorum.handle(request, request.MAX_VERSION, self._monotonic_ms(), done)

    def _register(self) -> None:
        config = self._config
        request = BrokerRegistrationRequest(
            broker_id=config.node_id,
            cluster_id=self._logs.cluster_id,
            incarnation_id=self._incarnation,
            listeners=self._listeners(),
            features=self._quorum.registration_features(),
            rack=config.broker_rack,
            log_dirs=sorted(each.directory_id for each in self._logs.dirs if not each.offline),
            previous_broker_epoch=self._logs.complete_epoch,
        )
        self._ask(request, self._registered)

    def _listeners(self) -> list[Listener]:
        advertised = self._config.advertised
        listeners = [
            Listener(
                name=each.name,
                host=each.host,
                port=each.port or self._bound_ports.get(each.name, 0),
                security_protocol=0,
            )
            for each in advertised
        ]
        if self._peer_port is not None:
            host = next(each.host for each in advertised if each.name == self._config.inter_broker_listener)
            listeners.append(Listener(name=REPLICATION_LISTENER, host=host, port=self._peer_port))
        return listeners

    def _not_registered(self, patience: str) -> None:
        if self.broker_epoch < 0 and not self._stopped:
            self._on_refused(
                f"unable to register with the controller quorum within {patience} ms ({REGISTRATION_TIMEOUT}): no "
                "active controller answered. See that a majority of the controllers runs, and that their addresses in "
                "controller.quorum.voters (or controller.quorum.bootstrap.servers) lead there"
            )

    def _registered(self, response: BrokerRegistrationResponse) -> None:
        if response.error_code != ErrorCode.NONE:
            self._registration_refused(ErrorCode.told(response.error_code))
            return
        self._refused_since_ms, self._refused_with = -1, ErrorCode.NONE
        self.broker_epoch = response.broker_epoch
        self._logs.note_registration(response.broker_epoch)
        self._on_registered(response.broker_epoch)
        self._beating = True
        self._heartbeat(self._monotonic_ms())

    def _registration_refused(self, code: ErrorCode) -> None:
        """Ask again, unless there is no hope. A reason is told once, not with every try."""
        now_ms = self._monotonic_ms()
        if code is not self._refused_with:
            self._refused_since_ms, self._refused_with = now_ms, code
            self._warn("registration refused", error=code.name)
        if self._stopped:
            return
        patience_ms = int(self._config.static.get(REGISTRATION_TIMEOUT, REGISTRATION_TIMEOUT_MS))
        late = now_ms - self._refused_since_ms >= patience_ms
        if code in FOREVER or (code is ErrorCode.DUPLICATE_BROKER_REGISTRATION and late):
            self._on_refused(f"the active controller does not register this broker: {self._what_to_do(code)}")
            return
        self._timers.at(now_ms + REGISTER_AGAIN_MS, lambda _now: self._register())

    def _what_to_do(self, code: ErrorCode) -> str:
        node_id = self._config.node_id
        if code is ErrorCode.DUPLICATE_BROKER_REGISTRATION:
            return (
                f"another process is registered with node.id={node_id}, and lives. Give each node an id of its own, or "
                "stop the other process"
            )
        if code is ErrorCode.INCONSISTENT_CLUSTER_ID:
            return (
                f"it belongs to another cluster than {self._logs.cluster_id}. Start the node with the id of its "
                "cluster, and an empty data directory"
            )
        return (
            "the cluster works at feature levels that this version does not support. "
            "Start the version of the other nodes"
        )

    # -- heartbeats ----------------------------------------------------------------------------------------------

    def _heartbeat(self, now_ms: int) -> None:
        if self._stopped or self._left or not self._beating:
            return
        self._beat()
        every = self._config.broker_heartbeat_interval_ms
        # While it is not served yet, or leaving, every answer counts.
        soon = not self.unfenced or self._shut_down is not None
        self._timers.at(now_ms + (min(every, HEARTBEAT_SOON_MS) if soon else every), self._heartbeat)

    def _beat(self) -> None:
        request = BrokerHeartbeatRequest(
            broker_id=self._config.node_id,
            broker_epoch=self.broker_epoch,
            current_metadata_offset=self._metadata_offset(),
            want_fence=False,
            want_shut_down=self._shut_down is not None,
            offline_log_dirs=[
                each.directory_id for each in self._logs.dirs if each.offline and each.is_known
            ],
            cordoned_log_dirs=[
                each.directory_id
                for each in self._logs.dirs
                if each.path in self._logs.cordoned and not each.offline
            ],
        )
        self._beats += 1
        number = self._beats
        self._ask(request, lambda response: self._heartbeat_answered(number, response))

    def directories_changed(self) -> None:
        """One has failed, and what was led from there needs other leaders; or others are cordoned now. The controller
        is told at once, not with the next heartbeat.
        """
        if self._beating and not self._stopped and not self._left:
            self._beat()

    def _is_known_to_be_new(self) -> bool:
        """Whether who answers is the active controller: if that is this process, it did not run either, and only its
        followers can tell. By then it would have resigned (check-quorum).
        """
        proven_ms = self._doubted_ms + 2 * self._config.controller_quorum_fetch_timeout_ms
        return not self._quorum.controller.active or self._monotonic_ms() >= proven_ms

    def doubt(self) -> None:
        """This process did not run for as long as its session lasts: others may lead what it led."""
        self._doubted_at, self._doubted_ms = self._beats, self._monotonic_ms()
        if self._beating and not self._stopped and not self._left:
            self._beat()

    def _heartbeat_answered(self, number: int, response: BrokerHeartbeatResponse) -> None:
        code = response.error_code
        if self._stopped or self._left:
            return
        if code in (ErrorCode.STALE_BROKER_EPOCH, ErrorCode.BROKER_ID_NOT_REGISTERED):
            self.unfenced = False
            self._beating = False
            self._register()
        elif code == ErrorCode.NONE:
            self._answered_ms = self._monotonic_ms()
            if self._shut_down is not None:
                if response.should_shut_down:
                    self._finish_shutdown()
                return
            if 0 <= self._doubted_at < number and not response.is_fenced and self._is_known_to_be_new():
                self._doubted_at = -1
                self._on_trusted()
            was, self.unfenced = self.unfenced, not response.is_fenced
            if self.unfenced and not was:
                self._on_unfenced()

    def unanswered_ms(self) -> int:
        """How long ago a controller last answered a heartbeat. A broker that hears nothing may be fenced by now."""
        return self._monotonic_ms() - self._answered_ms

    # -- controlled shutdown -------------------------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        """From `leave` on."""
        return self._left or self._shut_down is not None

    def leave(self, done: Callable[[], None]) -> None:
        """Controlled shutdown: hand over what this broker leads; `done` when the controller lets it go, or after
        `LEAVE_MS_MAX`, or when no controller has answered for `LEAVE_UNANSWERED_MS`.
        """
        self._shut_down = done
        wanted = self._config.static.get("controlled.shutdown.enable", "true").strip().lower() == "true"
        if not wanted or self._peer_port is None or self.broker_epoch < 0 or not self._quorum.has_leader:
            self._finish_shutdown()
            return
        now_ms = self._monotonic_ms()
        self._answered_ms = now_ms
        self._check_leaving(now_ms, now_ms + LEAVE_MS_MAX)
        self._beat()

    def _check_leaving(self, now_ms: int, give_up_ms: int) -> None:
        if self._shut_down is None:
            return
        if now_ms >= give_up_ms or now_ms - self._answered_ms >= LEAVE_UNANSWERED_MS:
            self._finish_shutdown()
            return
        self._timers.at(now_ms + LEAVE_CHECK_MS, lambda now: self._check_leaving(now, give_up_ms))

    def _finish_shutdown(self) -> None:
        done, self._shut_down = self._shut_down, None
        self._left = True
        if done is not None:
            done()
