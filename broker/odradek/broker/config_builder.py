"""From properties, environment and command line to a BrokerConfig.

Strongest first, as with Kafka and its official image:

    1. the command line           --override log.retention.ms=60000
    2. the environment            KAFKA_LOG_RETENTION_MS=60000
    3. the properties file        log.retention.ms=60000
    4. the defaults

`zero_config` gives what `odradek start` begins with. An error names the key and where it was set. Whatever
this node would have to do differently from what a key asks (TLS, SASL, an authorizer, tiered storage) is an
error, not a shrug; keys that only matter to a JVM are taken and left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from odradek.broker.config import KEY_FIELDS, BrokerConfig, StartupError
from odradek.broker.cordoned import CORDONED, cordon_refusal
from odradek.broker.keys_without_effect import without_effect
from odradek.broker.listeners import (
    SERVED_PROTOCOLS,
    Listener,
    parse_bootstrap_servers,
    parse_host_port,
    parse_listeners,
    parse_voters,
    security_protocols,
)
from odradek.broker.properties import Setting
from odradek.coordinator.config import ConfigError as GroupConfigError
from odradek.coordinator.config import GroupConfig
from odradek.metadata.config_def import ConfigError, Value, parse
from odradek.metadata.configs import BROKERS, is_known_broker_config
from odradek.replication.read_replica import LEADER, RACK_AWARE
from odradek.wire.uuid import uuid_from_string

DEFAULT_PORT = 9092
DEFAULT_METRICS_PORT = 9644

_ZOOKEEPER = ("zookeeper.", "zk.")
_FOR_THE_JVM = (
    "metric.reporters",
    "kafka.metrics.",
    "auto.include.jmx.reporter",
    "metrics.",
    "security.providers",
    "confluent.",
    "log4j",
)
_LATER = {
    "remote.log.storage.system.enable": "tiered storage",
    "connections.max.reauth.ms": "SASL",
    "delegation.token.secret.key": "delegation tokens",
    "authorizer.class.name": "an authorizer",
}
_NOT_LOADABLE = (
    "create.topic.policy.class.name",
    "alter.config.policy.class.name",
    "client.quota.callback.class",
    "replica.selector.class",
)


def zero_config(
    *, port: int = DEFAULT_PORT, data: str = "data", advertise: str | None = None
) -> dict[str, Setting]:
    """What `odradek start` begins with: one node for everything, advertised as localhost.

    `advertise` is `host` or `host:port`. StartupError if it is neither.
    """
    host, advertised_port = "localhost", port
    if advertise:
        given = parse_host_port(advertise) or parse_host_port(f"{advertise}:{port}")
        if given is None:
            raise StartupError(f"--advertise {advertise}: expected HOST or HOST:PORT")
        host, advertised_port = given
    shown = f"[{host}]" if ":" in host else host
    values = {
        "node.id": "1",
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://:{port}",
        "advertised.listeners": f"PLAINTEXT://{shown}:{advertised_port}",
        "log.dirs": data,
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Long enough that a client knows its topics' partitions before it has to assign them (kafka-python can
        # otherwise end up with nothing assigned), short enough that nobody waits.
        "group.initial.rebalance.delay.ms": "100",
        "odradek.metrics.port": str(DEFAULT_METRICS_PORT),
    }
    return {key: Setting(value, "odradek start") for key, value in values.items()}


def build_config(
    *layers: Mapping[str, Setting], cluster_id: str | None = None, hostname: str = "localhost"
) -> BrokerConfig:
    """Judge and type the settings; later layers are stronger. StartupError names the key and where it was
    set.

    `hostname` is what is advertised for a listener on all interfaces when nothing else is said.
    """
    settings: dict[str, Setting] = {}
    for layer in layers:
        settings.update(layer)
    builder = _Builder(settings)
    try:
        return builder.build(cluster_id, hostname)
    except ConfigError as error:
        raise StartupError(builder.located(str(error))) from None


class _Builder:
    """One use: the settings on their way to a BrokerConfig."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self.settings = settings
        self.key = ""
        self.warnings: list[str] = []

    def located(self, text: str) -> str:
        """`text` with the place where the key at fault was set, where that is known."""
        setting = self.settings.get(self.key)
        return f"{setting.origin}: {text}" if setting is not None else text

    def value(self, key: str) -> Value | None:
        """The typed value in force for `key`. ConfigError if it is not acceptable."""
        self.key = key
        setting = self.settings.get(key)
        text = setting.value if setting is not None else BROKERS[key].default
        return None if text is None else parse(BROKERS[key], text)

    def words(self, key: str) -> list[str]:
        value = self.value(key)
        return value if isinstance(value, list) else []

    def text(self, key: str) -> str | None:
        value = self.value(key)
        return value if isinstance(value, str) and value else None

    def number(self, key: str) -> int | None:
        value = self.value(key)
        return int(value) if isinstance(value, int | float) else None

    def require(self, condition: bool, key: str, text: str) -> None:
        if not condition:
            self.key = key
            raise ConfigError(text)

    def check_groups(self) -> None:
        """Keys of the group coordinator that have to fit each other."""
        try:
            GroupConfig.from_configs({key: setting.value for key, setting in self.settings.items()})
        except GroupConfigError as error:
            self.key = str(error).partition(" ")[0]
            raise ConfigError(str(error)) from None

    def build(self, cluster_id: str | None, hostname: str) -> BrokerConfig:
        self.refuse_what_is_not_there()
        for key in self.settings:  # every key that was set, used here or not
            if key in BROKERS:
                self.value(key)
        self.check_groups()
        values: dict[str, Any] = {field: self.value(key) for field, key in KEY_FIELDS.items()}
        values["node_id"] = self.node_id()
        values["roles"] = frozenset(self.words("process.roles") or ("broker", "controller"))
        values["cluster_id"] = self.cluster_id(cluster_id)
        values |= self.directories()
        values |= self.quorum(values["node_id"], values["roles"])
        others = [voter for voter in values["voters"] if voter.node_id != values["node_id"]]
        alone = values["roles"] == {"broker", "controller"} and not others and not values["bootstrap_servers"]
        values |= self.addresses(values["roles"], may_be_alone=alone, hostname=hostname)
        values["ip_connections"] = self.ip_connections()
        self.judge_together()
        self.let_defaults_give_way(values)
        static = {key: setting.value for key, setting in self.settings.items()}
        static.setdefault("node.id", str(values["node_id"]))
        static.setdefault("broker.id", static["node.id"])  # one stands for the other, as in Kafka
        static.setdefault("process.roles", "broker,controller")
        return BrokerConfig(**values, static=static, warnings=tuple(self.warnings))

    def let_defaults_give_way(self, values: dict[str, Any]) -> None:
        """Defaults of ours that are stricter than Kafka's must not make a file an error that Kafka
        accepts.
        """
        if "queued.max.request.bytes" not in self.settings:
            bounds = values["queued_max_request_bytes"], values["socket_request_max_bytes"]
            values["queued_max_request_bytes"] = max(bounds)
        if "replica.lag.time.max.ms" not in self.settings:
            waits = values["replica_lag_time_max_ms"], self.number("replica.fetch.wait.max.ms") or 0
            values["replica_lag_time_max_ms"] = max(waits)

    def refuse_what_is_not_there(self) -> None:
        unknown: list[str] = []
        for key, setting in self.settings.items():
            self.key = key
            if key.startswith(_ZOOKEEPER):
                raise ConfigError(
                    f"{key} belongs to ZooKeeper, which went with Kafka 4. Set process.roles, node.id and "
                    "controller.quorum.voters instead, or leave them out for a single node."
                )
            asked = setting.value.strip().lower() not in ("", "false", "0")
            if key in _LATER and asked:
                raise ConfigError(f"{key} asks for {_LATER[key]}, which Odradek does not have yet.")
            if key == "replica.selector.class" and setting.value.strip() in (LEADER, RACK_AWARE):
                continue
            if key in _NOT_LOADABLE and asked:
                self.warnings.append(
                    f"{setting.origin}: {key} names a Java class, which cannot be run here; ignored"
                )
            elif not is_known_broker_config(key) and not key.startswith(_FOR_THE_JVM):
                unknown.append(key)
        if unknown:
            self.warnings.append(
                f"These configurations '[{', '.join(sorted(unknown))}]' were supplied but are not used yet."
            )
        idle = without_effect({key: setting.value for key, setting in self.settings.items()})
        if idle:
            self.warnings.append(f"These configurations have no effect here: {', '.join(idle)}")

    def cluster_id(self, text: str | None) -> str | None:
        if not text:
            return None
        try:
            uuid_from_string(text)
        except ValueError as error:
            self.key = ""
            raise ConfigError(
                f"Cluster ID string {text} does not appear to be a valid UUID: {error}"
            ) from None
        return text

    def node_id(self) -> int:
        node_id, broker_id = self.number("node.id"), self.number("broker.id")
        if "broker.id" in self.settings:
            if node_id is None:
                node_id = broker_id
            same = "You must set `node.id` to the same value as `broker.id`."
            self.require(node_id == broker_id, "node.id", same)
            self.require((node_id or 0) >= 0, "broker.id", "broker.id must be greater than or equal to 0")
        return 1 if node_id is None else node_id

    def directories(self) -> dict[str, Any]:
        dirs = tuple(self.words("log.dirs") or self.words("log.dir"))
        refusal = cordon_refusal(self.words(CORDONED), dirs)
        self.require(refusal is None, CORDONED, refusal or "")
        return {"log_dirs": dirs, "metadata_dir": self.text("metadata.log.dir") or dirs[0]}

    def quorum(self, node_id: int, roles: frozenset[str]) -> dict[str, Any]:
        voters = parse_voters(self.words("controller.quorum.voters"))
        bootstrap = parse_bootstrap_servers(self.words("controller.quorum.bootstrap.servers"))
        ids = sorted(voter.node_id for voter in voters)
        shown = f"controller.quorum.voters={','.join(map(str, ids))}"
        if "controller" in roles:
            self.require(
                not voters or node_id in ids,
                "controller.quorum.voters",
                f"If process.roles contains the 'controller' role, the node id {node_id} must be included in "
                f"the set of voters {shown}",
            )
        else:
            self.require(
                bool(voters or bootstrap),
                "process.roles",
                "If using process.roles, either controller.quorum.bootstrap.servers must contain the set of "
                "bootstrap controllers or controller.quorum.voters must contain a parseable set of "
                "controllers.",
            )
            self.require(
                node_id not in ids,
                "controller.quorum.voters",
                f"If process.roles contains just the 'broker' role, the node id {node_id} must not be "
                f"included in the set of voters {shown}",
            )
        return {"voters": voters, "bootstrap_servers": bootstrap}

    def addresses(self, roles: frozenset[str], *, may_be_alone: bool, hostname: str) -> dict[str, Any]:
        """`may_be_alone`: nothing says that there are other nodes, so the controller needs no address."""
        names = tuple(name.upper() for name in self.words("controller.listener.names") or ["CONTROLLER"])
        entries = self.words("listeners")
        self.key = "listener.security.protocol.map"
        protocols = security_protocols(
            self.text("listener.security.protocol.map") or "",
            explicit="listener.security.protocol.map" in self.settings,
            controller_names=names,
            listeners=entries,
        )
        self.key = "listeners"
        bound = parse_listeners(entries, protocols, distinct_ports=True)
        controller = tuple(each for each in bound if each.name in names)
        broker = tuple(each for each in bound if each.name not in names)
        self.judge_controller_listeners(roles, names, bound, controller, may_be_alone and not controller)
        advertised = self.advertised(protocols, names, broker, hostname) if "broker" in roles else ()
        for each in (*broker, *advertised, *controller):
            self.require(
                each.protocol in SERVED_PROTOCOLS,
                "listeners",
                f"the listener {each.name} asks for {each.protocol}: TLS and SASL come later, "
                "only PLAINTEXT is served so far.",
            )
        return {
            "listeners": broker,
            "controller_listeners": controller,
            "controller_advertised": self.controller_advertised(protocols, controller, hostname),
            "advertised": advertised,
            "controller_listener_names": names,
            "inter_broker_listener": self.inter_broker(protocols, advertised) if "broker" in roles else "",
        }

    def judge_controller_listeners(
        self,
        roles: frozenset[str],
        names: tuple[str, ...],
        bound: tuple[Listener, ...],
        controller: tuple[Listener, ...],
        alone: bool,
    ) -> None:
        key = "controller.listener.names"
        if roles == {"broker"}:
            self.require(
                not controller,
                key,
                f"{key} must not contain a value appearing in the 'listeners' configuration when running "
                "KRaft with just the broker role",
            )
        elif not alone:
            self.require(
                bool(controller),
                key,
                f"{key} must contain at least one value appearing in the 'listeners' configuration when "
                "running the KRaft controller role",
            )
            self.require(
                {each.name for each in controller} == set(names),
                key,
                f"{key} must only contain values appearing in the 'listeners' configuration when running the "
                "KRaft controller role",
            )
        if roles == {"controller"}:
            self.require(
                len(controller) == len(bound),
                "listeners",
                f"The listeners config must only contain KRaft controller listeners from {key} when "
                "process.roles=controller",
            )

    def controller_advertised(
        self, protocols: Mapping[str, str], controller: tuple[Listener, ...], hostname: str
    ) -> tuple[Listener, ...]:
        """Of each controller listener, its entry in advertised.listeners if it has one."""
        told = parse_listeners(self.words("advertised.listeners"), protocols, distinct_ports=False)
        by_name = {each.name: each for each in told}
        found = (by_name.get(each.name, each) for each in controller)
        return tuple(each._replace(host=each.host or hostname) for each in found)

    def advertised(
        self,
        protocols: Mapping[str, str],
        names: tuple[str, ...],
        broker: tuple[Listener, ...],
        hostname: str,
    ) -> tuple[Listener, ...]:
        key = "advertised.listeners"
        entries = self.words(key)
        told = parse_listeners(entries, protocols, distinct_ports=False) if entries else broker
        told = tuple(each for each in told if each.name not in names)
        perhaps = "Perhaps all listeners appear in controller.listener.names?"
        self.require(bool(told), key, f"There must be at least one broker advertised listener. {perhaps}")
        meta = f"{key} cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address."
        self.require(not any(each.host == "0.0.0.0" for each in told), key, meta)
        bound = [each.name for each in broker]
        self.require(
            all(each.name in bound for each in told),
            key,
            f"{key} listener names must be equal to or a subset of the ones defined in listeners. Found "
            f"{','.join(each.name for each in told)}. The valid options based on the current configuration "
            f"are {','.join(bound)}",
        )
        return tuple(each._replace(host=each.host or hostname) for each in told)

    def inter_broker(self, protocols: Mapping[str, str], advertised: tuple[Listener, ...]) -> str:
        key = "inter.broker.listener.name"
        named = self.text(key)
        if named is None:
            name = self.text("security.inter.broker.protocol") or "PLAINTEXT"
        else:
            clash = f"Only one of {key} and security.inter.broker.protocol should be set."
            self.require("security.inter.broker.protocol" not in self.settings, key, clash)
            name = named.upper()
            unmapped = (
                f"Listener with name {name} defined in {key} not found in listener.security.protocol.map."
            )
            self.require(name in protocols, key, unmapped)
        options = ",".join(each.name for each in advertised)
        self.require(
            any(each.name == name for each in advertised),
            key,
            f"{key} must be a listener name defined in advertised.listeners. The valid options based on "
            f"currently configured listeners are {options}",
        )
        return name

    def ip_connections(self) -> dict[str, int]:
        key = "max.connections.per.ip.overrides"
        overrides: dict[str, int] = {}
        for entry in (self.text(key) or "").split(","):
            address, colon, limit = entry.strip().rpartition(":")
            if not entry.strip():
                continue
            well_formed = bool(colon) and limit.isascii() and limit.isdigit() and len(limit) < 10
            form = f"{entry.strip()} is not of the form address:limit"
            self.require(well_formed, key, f"Error parsing configuration property '{key}': {form}")
            invalid = f"{key} contains invalid addresses : {address}"
            self.require(parse_host_port(f"{address}:0") is not None or ":" in address, key, invalid)
            overrides[address] = int(limit)
        if self.number("max.connections.per.ip") == 0:
            needed = f"max.connections.per.ip can be set to zero only if {key} property is set."
            self.require(bool(overrides), "max.connections.per.ip", needed)
        return overrides

    def judge_together(self) -> None:
        """Kafka's checks of one value against another (`AbstractKafkaConfig.validateValues`)."""
        at_least = (("log.roll.ms", 1), ("log.roll.jitter.ms", 0))
        for key, least in at_least:
            value = self.number(key)
            self.require(
                value is None or value >= least, key, f"{key} must be greater than or equal to {least}"
            )
        retention = self.number("log.retention.ms")
        text = "log.retention.ms must be unlimited (-1) or, greater than or equal to 1"
        self.require(retention is None or retention >= 1 or retention < 0, "log.retention.ms", text)
        table, threads = self.number("log.cleaner.dedupe.buffer.size"), self.number("log.cleaner.threads")
        text = "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread."
        is_enough = not threads or (table or 0) // threads > 1 << 20
        self.require(is_enough, "log.cleaner.dedupe.buffer.size", text)
        queued, frame = self.number("queued.max.request.bytes"), self.number("socket.request.max.bytes")
        if "queued.max.request.bytes" in self.settings and queued is not None and frame is not None:
            text = "queued.max.request.bytes must be larger or equal to socket.request.max.bytes"
            self.require(queued <= 0 or queued >= frame, "queued.max.request.bytes", text)
        wait, lag = self.number("replica.fetch.wait.max.ms") or 0, self.number("replica.lag.time.max.ms") or 0
        if "replica.lag.time.max.ms" in self.settings:
            text = (
                "replica.fetch.wait.max.ms should always be less than or equal to replica.lag.time.max.ms "
                "to prevent frequent changes in ISR"
            )
            self.require(wait <= lag, "replica.lag.time.max.ms", text)
        session = self.number("broker.session.timeout.ms") or 0
        beat = self.number("broker.heartbeat.interval.ms") or 0
        if beat * 2 > session:  # Kafka starts all the same
            self.warnings.append(
                f"broker.heartbeat.interval.ms ({beat} ms) must be less than or equal to half of the "
                f"broker.session.timeout.ms ({session} ms)."
            )


def settings_of(values: Mapping[str, str] | Iterable[tuple[str, str]], origin: str) -> dict[str, Setting]:
    """Plain keys and values as a layer for `build_config`."""
    return {key: Setting(value, origin) for key, value in dict(values).items()}
