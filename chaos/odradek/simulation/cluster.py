"""One run: machines, network, clients and faults under one seed; chaos, then calm, then what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from odradek.simulation.admin import Admin
from odradek.simulation.client import Client
from odradek.simulation.compaction import RecordsDeleter
from odradek.simulation.consumer import Consumer
from odradek.simulation.consumer_member import SESSION_MS, ConsumerGroupTruth, ConsumerMember
from odradek.simulation.coordinator_checks import check_coordinators
from odradek.simulation.decision_log import check_decisions
from odradek.simulation.faults import Nemesis
from odradek.simulation.group_member import GroupMember, GroupTruth
from odradek.simulation.history import History, Key
from odradek.simulation.invariants import Invariants
from odradek.simulation.machine import Machine
from odradek.simulation.network import Network
from odradek.simulation.offsets_client import Committer, OffsetReader
from odradek.simulation.producer import Producer, ProducerSettings
from odradek.simulation.scenario import Scenario, TopicPlan
from odradek.simulation.scheduler import MS, SECOND, WALL_START_MS, Scheduler
from odradek.simulation.trace import InvariantViolation, Trace
from odradek.simulation.transaction_history import TransactionHistory
from odradek.simulation.transactional_producer import TransactionalProducer
from odradek.simulation.voter_admin import VoterAdmin, format_quorum

if TYPE_CHECKING:
    from odradek.metadata.image import TopicImage

BASE_SETTINGS = {
    "offsets.topic.num.partitions": "2",
    "log.retention.check.interval.ms": "5000",
    "log.flush.offset.checkpoint.interval.ms": "700",
    "log.flush.start.offset.checkpoint.interval.ms": "700",
    "replica.high.watermark.checkpoint.interval.ms": "700",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(SESSION_MS),
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
    "transaction.state.log.num.partitions": "2",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "odradek.metrics.port": "-1",
}
PORT, CONTROLLER_PORT = 9092, 9093
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")


class Cluster:
    """Build, `run`; InvariantViolation is the finding."""

    def __init__(self, seed: int, scenario: Scenario, *, echo: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.scenario = scenario
        self.rng = Random(seed)
        self.scheduler = Scheduler()
        self.trace = Trace(lambda: self.scheduler.now_us, echo)
        self.network = Network(self.scheduler, self._fork(), self.trace)
        self.history = History()
        self.cluster_id = "AAAAAAAAAAAAAAAAAAAAAQ"
        self.machines: dict[int, Machine] = {}
        for node_id in range(1, scenario.nodes + scenario.controllers + 1):
            self.machines[node_id] = Machine(self, node_id, self._settings(node_id), self._fork())
        self.broker_hosts = [m.host for m in self.machines.values() if self.is_broker(m.id)]
        self.invariants = Invariants(self)
        self.nemesis = Nemesis(self, self._fork())
        self.topics = list(scenario.topics)
        self._plans: dict[str, TopicPlan] = dict(scenario.topics)
        self._gone: set[Key] = set()
        self.ending = False
        """Nodes are being stopped, and nobody starts one any more."""
        self.quiet_until_us = 0
        """Producers send nothing new until then."""
        self._producer_ids: dict[int, str] = {}
        self.admin = Admin(self, "c-admin", self._fork())
        self.producers = self._make_producers()
        self.consumers = [self._make_consumer(f"c-read{i}") for i in range(scenario.consumers)]
        self.committers = [Committer(self, f"c-commit{i}", self._fork()) for i in range(scenario.committers)]
        truth = GroupTruth()
        self.members = [
            GroupMember(self, f"c-member{i}", self._fork(), truth) for i in range(scenario.group_members)
        ]
        consumers = ConsumerGroupTruth()
        self.consumer_members = [
            ConsumerMember(self, f"c-consumer{i}", self._fork(), consumers)
            for i in range(scenario.consumer_members)
        ]
        self.transactions = TransactionHistory()
        self.transactional = self._make_transactional()
        self.clients: list[Client] = [
            *(self.admin, *self.producers, *self.consumers, *self.committers, *self.members),
            *self.transactional,
            *self.consumer_members,
        ]
        self.voter_admin = self._make_voter_admin()
        if self.voter_admin is not None:
            self.clients.append(self.voter_admin)
        self.deleter = RecordsDeleter(self, "c-delete", self._fork()) if scenario.compaction else None
        if self.deleter is not None:
            self.clients.append(self.deleter)
        self.client_names = [client.name for client in self.clients]

    def _fork(self) -> Random:
        return Random(self.rng.getrandbits(64))

    # -- make-up -------------------------------------------------------------------------------------------------

    def is_broker(self, node_id: int) -> bool:
        return not self.scenario.controllers or node_id > self.scenario.controllers

    def bootstrap_controllers(self, node_id: int) -> list[int]:
        """The others that a node of a dynamic quorum asks who leads."""
        return (
            [i for i in range(1, self.scenario.controllers + 1) if i != node_id]
            if self.scenario.dynamic
            else []
        )

    def is_controller(self, node_id: int) -> bool:
        return node_id <= (self.scenario.controllers or self.scenario.nodes)

    def _settings(self, node_id: int) -> dict[str, str]:
        """Of one node; a cluster of one is what `odradek start` begins with."""
        scenario = self.scenario
        settings = {**BASE_SETTINGS, "node.id": str(node_id)}
        settings["advertised.listeners"] = f"PLAINTEXT://n{node_id}:{PORT}"
        if scenario.nodes + scenario.controllers > 1:
            settings |= self._quorum_settings(node_id)
        return settings | dict(scenario.settings)

    def _quorum_settings(self, node_id: int) -> dict[str, str]:
        scenario = self.scenario
        voters = range(1, (scenario.controllers or scenario.nodes) + 1)
        listeners = []
        roles = []
        if self.is_broker(node_id):
            roles.append("broker")
            listeners.append(f"PLAINTEXT://n{node_id}:{PORT}")
        if node_id in voters:
            roles.append("controller")
            listeners.append(f"CONTROLLER://n{node_id}:{CONTROLLER_PORT}")
        replicas = str(min(3, scenario.nodes))
        return {
            "process.roles": ",".join(roles),
            "listeners": ",".join(listeners),
            "controller.listener.names": "CONTROLLER",
            **self._how_to_find(voters),
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": scenario.settings.get("min.insync.replicas", "1"),
            "default.replication.factor": replicas,
        }

    def _how_to_find(self, controllers: range) -> dict[str, str]:
        if self.scenario.dynamic:
            servers = ",".join(f"n{each}:{CONTROLLER_PORT}" for each in controllers)
            return {"controller.quorum.bootstrap.servers": servers}
        return {"controller.quorum.voters": ",".join(f"{v}@n{v}:{CONTROLLER_PORT}" for v in controllers)}

    def _make_voter_admin(self) -> VoterAdmin | None:
        if not self.scenario.dynamic:
            return None
        first = [self.machines[node_id] for node_id in range(1, self.scenario.controllers)]
        format_quorum(self, first, self._fork(), CONTROLLER_PORT)
        return VoterAdmin(self, "c-voters", self._fork(), CONTROLLER_PORT)

    def _make_producers(self) -> list[Producer]:
        rng = self._fork()
        made = []
        for number in range(self.scenario.producers + self.scenario.plain_producers):
            idempotent = number < self.scenario.producers
            settings = ProducerSettings(
                acks=-1 if idempotent else rng.choice(self.scenario.plain_acks),
                idempotent=idempotent,
                interval_ms=rng.choice(((2, 20), (10, 80))),
                delivery_timeout_us=rng.choice((120, 120, 4)) * SECOND,
                version=rng.choice((9, 11, 12, 13)),
                bursts=self.scenario.bursts,
            )
            made.append(Producer(self, f"c-write{number}", self._fork(), settings))
        return made

    def _make_consumer(self, name: str) -> Consumer:
        rng = self._fork()
        version = rng.choice((8, 11, 12, 13, 16, 17))
        sessions, committed = rng.random() < 0.5, rng.random() < 0.5
        return Consumer(self, name, rng, version=version, sessions=sessions, committed=committed)

    def _make_transactional(self) -> list[TransactionalProducer]:
        made = []
        for number in range(self.scenario.transactional):
            adds_itself = self.rng.random() < 0.5
            made += [
                TransactionalProducer(
                    self, f"c-txn{number}{twin}", self._fork(), f"t{number}", adds_itself=adds_itself
                )
                for twin in ("a" if self.scenario.lone else "ab")
            ]
        return made

    # -- asked by the parts --------------------------------------------------------------------------------------

    def true_wall_ms(self) -> int:
        return WALL_START_MS + self.scheduler.now_us // 1_000

    def partitions_of(self, topic: str) -> int:
        return self._plans[topic].partitions

    def flushes(self, topic: str) -> bool:
        plan = self._plans.get(topic)
        if plan is not None:
            return plan.flushes
        return self.scenario.settings.get("log.flush.interval.messages") == "1"

    def compacts(self, topic: str) -> bool:
        """Whether logs of this topic are compacted here, and small enough for that to happen."""
        plan = self._plans.get(topic)
        policy = plan.configs.get("cleanup.policy", "") if plan is not None else ""
        return self.scenario.compaction and ("compact" in policy or topic in INTERNAL_TOPICS)

    def deletes(self, topic: str) -> bool:
        """Whether old records are deleted, by retention or when somebody asks."""
        plan = self._plans.get(topic)
        return plan is not None and "delete" in plan.configs.get("cleanup.policy", "delete")

    def min_isr(self, topic: str, replicas: int) -> int:
        plan = self._plans.get(topic)
        own = plan.configs.get("min.insync.replicas") if plan is not None else None
        return min(replicas, int(own or self.scenario.settings.get("min.insync.replicas", "1")))

    def may_lose_power(self, machine: Machine) -> bool:
        """Whether the promises would still cover everything, where the scenario asks for that."""
        return not self.scenario.within_promises or self.invariants.survives_loss(machine)

    def may_lose_disk(self, machine: Machine) -> bool:
        return not self.scenario.within_promises or self.invariants.survives_loss(machine, all_of_it=True)

    def expects_refusal(self, machine: Machine, error: Exception) -> bool:
        return bool(machine.disk_faults)

    def offsets_may_be_lost(self) -> bool:
        """Whether the promises allow the group coordinator's log to have lost something."""
        models = self.invariants.models.values()
        return any(m.losses or m.loss_allowed or m.dead for m in models if m.topic == "__consumer_offsets")

    def topic_gone(self, topic: TopicImage) -> None:
        """The metadata says that a topic is deleted."""
        self.trace.note("metadata", "topic deleted", topic.name)
        for index in topic.partitions:
            self._gone.add((topic.id, index))
            self.history.deleted.add((topic.id, index))
        self.admin.check_deleted(topic.name, topic.id)

    def is_deleted(self, key: Key) -> bool:
        return key in self._gone

    def producer_id_given(self, producer_id: int, client: str) -> None:
        """Producer ids are given once, whatever dies."""
        other = self._producer_ids.setdefault(producer_id, client)
        if other != client:
            raise InvariantViolation(f"F1: producer id {producer_id} is given to {other} and to {client}")

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._boot()
        self._chaos()
        self.nemesis.heal()
        self._require_progress()
        self._check_end()

    def _boot(self) -> None:
        for machine in self.machines.values():
            machine.start()
        self._wait(20_000, self._all_ready, "the cluster does not become ready")
        self.admin.create_all(self._plans)
        self._wait(20_000, lambda: self.admin.created_all, "topics are not created")

    def _all_ready(self) -> bool:
        return all(
            machine.node is not None and machine.node.unfenced
            for machine in self.machines.values()
            if self.is_broker(machine.id)
        )

    def _chaos(self) -> None:
        for client in self.clients:
            client.start()  # type: ignore[attr-defined]
        self.nemesis.start()
        self.scheduler.run_until(self.scheduler.now_us + self.scenario.chaos_ms * MS)

    def _wait(self, limit_ms: int, condition: Callable[[], bool], complaint: str) -> None:
        if not self.scheduler.run_until(self.scheduler.now_us + limit_ms * MS, condition):
            raise InvariantViolation(f"A1: {complaint} ({self._what_is_missing()})")

    def _what_is_missing(self) -> str:
        found = []
        for machine in self.machines.values():
            if machine.process is None:
                found.append(f"{machine.host} is down")
            elif machine.node is not None:
                found += [f"{machine.host}: {reason}" for reason in machine.node.readiness()[1]]
        for key, partition in self.invariants.metadata.partitions():
            model = self.invariants.models.get(key)
            if partition.leader < 0 or len(partition.isr) < len(partition.replicas):
                found.append(f"{model.name if model else key}: {replace(partition, directories=())}")
        for producer in self.producers:
            found += producer.unfinished()
        return "; ".join(found[:12])

    def _require_progress(self) -> None:
        """After the faults: everybody leads who should, everything sent has a fate, and readers reach the end."""
        self._wait(self.scenario.heal_ms, self._all_ready, "brokers are not ready after the faults ended")
        for producer in self.producers:
            producer.stop_sending()
        for client in (*self.producers, *self.committers, *self._group_members(), *self.transactional):
            client.request_timeout_us = 10 * SECOND
        self.admin.stop_changing()
        if self.deleter is not None:
            self.deleter.stopped = True
        self._wait(
            self.scenario.heal_ms,
            lambda: all(producer.done for producer in self.producers),
            "producers do not finish after the faults ended",
        )
        self._wait(self.scenario.heal_ms, lambda: self.admin.done, "admin requests do not finish")
        if (voter_admin := self.voter_admin) is not None:
            voter_admin.finish()
            self._wait(
                self.scenario.heal_ms, lambda: voter_admin.done, "not every controller becomes a voter"
            )
            voter_admin.stopped = True
        last = self._last_writer()
        self._wait(
            self.scenario.heal_ms,
            lambda: last.done,
            "not every partition takes writes after the faults ended",
        )
        self._wait(
            self.scenario.heal_ms, self._all_in_sync, "not everybody gets in sync after the faults ended"
        )
        self._finish_transactions()
        users: list[Committer | GroupMember | ConsumerMember] = [*self.committers, *self._group_members()]
        for user in users:
            user.finish()
        self._wait(
            self.scenario.heal_ms,
            lambda: all(user.done for user in users),
            "offsets cannot be committed and read after the faults ended",
        )
        for member in self._group_members():
            member.stopped = True
        self._wait(
            self.scenario.heal_ms,
            lambda: all(consumer.lag() == 0 for consumer in self.consumers),
            "consumers do not reach the end after the faults ended",
        )

    def _group_members(self) -> list[GroupMember | ConsumerMember]:
        return [*self.members, *self.consumer_members]

    def _finish_transactions(self) -> None:
        """T5: one client of each transactional id goes on until it has committed, and nothing stays open."""
        for client in self.transactional:
            if client.name.endswith("b"):
                client.stopped = True
            else:
                client.finish()
        going_on = [client for client in self.transactional if not client.stopped]
        self._wait(
            self.scenario.heal_ms,
            lambda: all(client.done for client in going_on),
            "nobody can commit transactions",
        )
        for client in going_on:
            client.stopped = True
        models = self.invariants.models.values()
        self._wait(
            10_000,
            lambda: all(model.dead or model.transactions.open_since() is None for model in models),
            "T5: transactions stay open",
        )

    def _check_transactions(self) -> None:
        """T1: partitions among each other, and group offsets with them. T4: what was decided has happened."""
        models = self.invariants.models
        self.transactions.check_all(models)
        for _ in range(check_decisions(models, self._gone)):
            self.trace.count("transaction: decision looked at")
        for name in self.transactions.ids():
            expected = self.transactions.expected_offset(name, models)
            found = self._committed_offset(f"g-{name}")
            if expected is not None and found != expected and not self.offsets_may_be_lost():
                raise InvariantViolation(
                    f"T1: the transactions of {name} committed offset {expected}, its group has {found}"
                )

    def _committed_offset(self, group: str) -> int | None:
        reader = OffsetReader(self, "c-offsets", self._fork(), group)
        reader.start()
        self._wait(
            self.scenario.heal_ms, lambda: reader.found is not None, f"T5: offsets of {group} stay unstable"
        )
        return reader.found

    def _all_in_sync(self) -> bool:
        return all(len(each.isr) == len(each.replicas) for _, each in self.invariants.metadata.partitions())

    def _last_writer(self) -> Producer:
        """acks=all works on every partition."""
        settings = ProducerSettings(delivery_timeout_us=600 * SECOND)
        writer = Producer(self, "c-last", self._fork(), settings)
        writer.write_everywhere()
        return writer

    def _read_everything(self, reader: Consumer) -> None:
        reader.start()
        self._wait(self.scenario.heal_ms, lambda: reader.lag() == 0, "a new consumer does not reach the end")
        reader.stop()
        reader.check_all_delivered()

    def _check_end(self) -> None:
        """A reader that has seen nothing yet reads everything; then each batch is judged."""
        readers = [self._make_consumer("c-final")]
        if self.transactional:
            readers.append(self._make_consumer("c-final2"))
            readers[1].committed = not readers[0].committed
        for reader in readers:
            self._read_everything(reader)
        self.history.check_all(self.invariants.models)
        self._check_transactions()
        for machine in self.machines.values():
            if machine.process is not None and machine.process.replicates:
                for _ in range(check_coordinators(machine.process)):
                    self.trace.count("coordinator: compared with a replay")
        self.ending = True
        for machine in self.machines.values():
            machine.stop()
        self._wait(
            self.scenario.heal_ms,
            lambda: all(machine.process is None for machine in self.machines.values()),
            "nodes do not stop",
        )
