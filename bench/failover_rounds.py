"""What happens to a node in a round, and what it costs: write gap, election, errors a client shows."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence

from bench.clusters import Cluster, describe, until
from bench.failover_load import Load
from bench.raw_client import CREATE_TOPICS_VERSION, Admin, BenchError
from bench.rows import Metrics
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse

TOPIC = "failover"
PARTITIONS = 6
SETTLE_S = 0.5
PATIENCE_S = 90.0
LEADER, CONTROLLER, STOP, PAUSE = "leader kill -9", "controller kill -9", "controlled stop", "pause"
KINDS = (LEADER, CONTROLLER, STOP, PAUSE)
TOPIC_PATIENCE_S = 2.0
RETRY_S = 0.01


class Trial:
    """A cluster under load, between rounds."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._topics = 0

    def begin(self) -> Load:
        self.cluster.start()
        with Admin(self.cluster.port) as admin:
            admin.create_topic(TOPIC, PARTITIONS, [], replicas=len(self.cluster.nodes))
        load = Load(self.cluster.bootstrap, TOPIC, PARTITIONS)
        load.start()
        until(lambda: load.has_begun, "no acknowledgements", PATIENCE_S)
        return load

    def leaders(self) -> list[int] | None:
        """By partition; None as long as not everything is led, in sync and known to a controller."""
        nodes = len(self.cluster.nodes)
        with contextlib.suppress(OSError, BenchError), Admin(self.cluster.port, timeout_s=5.0) as admin:
            partitions = describe(admin, [TOPIC]).topics[0].partitions
            settled = len(partitions) == PARTITIONS and all(
                len(each.isr_nodes) == nodes for each in partitions
            )
            if settled and self.cluster.controller():
                return [each.leader_id for each in partitions]
        return None

    def round(self, load: Load, kind: str) -> Metrics:
        """One round; everything is as before afterwards."""
        until(lambda: self.leaders() is not None, "the cluster did not settle", PATIENCE_S, poll_s=0.05)
        leaders, controller = self.leaders() or [], self.cluster.controller()
        victim = victim_of(kind, leaders, controller)
        time.sleep(SETTLE_S)
        errors = len(load.errors)
        moment = time.monotonic()
        metrics: Metrics = {"was_controller": victim == controller}
        self._strike(victim, kind)
        if kind == CONTROLLER:
            metrics["election_ms"] = self._create_topic(victim, moment) * 1_000
        until(lambda: load.flows_since(moment), f"{kind}: acknowledgements did not flow again", PATIENCE_S)
        metrics["gap_ms"] = load.gap_ms(moment)
        metrics["errors"] = len(load.errors) - errors
        self._bring_back(victim, kind)
        return metrics

    def _strike(self, victim: int, kind: str) -> None:
        process = self.cluster.nodes[victim].process
        assert process is not None, "it runs"
        if kind == PAUSE:
            process.send_signal(signal.SIGSTOP)
        elif kind == STOP:
            process.terminate()
        else:
            self.cluster.kill(victim)

    def _bring_back(self, victim: int, kind: str) -> None:
        node = self.cluster.nodes[victim]
        if kind == PAUSE:
            assert node.process is not None
            node.process.send_signal(signal.SIGCONT)
            return
        node.stop()
        self.cluster.ready_s(victim)

    def _create_topic(self, gone: int, moment: float) -> float:
        """Seconds from `moment` to the answer that a topic was created: there is a controller, and it works."""
        self._topics += 1
        name = f"after-{self._topics}"
        topic = CreatableTopic(name=name, num_partitions=1, replication_factor=1)
        request = CreateTopicsRequest(topics=[topic], timeout_ms=int(TOPIC_PATIENCE_S * 1000))
        port = self.cluster.survivor(gone).port
        good = (ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS)
        while time.monotonic() - moment < PATIENCE_S:
            with contextlib.suppress(OSError, BenchError), Admin(port, timeout_s=TOPIC_PATIENCE_S) as admin:
                answer = admin.ask(request, CREATE_TOPICS_VERSION, CreateTopicsResponse)
                if answer.topics[0].error_code in good:
                    return time.monotonic() - moment
            time.sleep(RETRY_S)
        raise BenchError(f"no topic could be created for {PATIENCE_S:.0f} s")


def victim_of(kind: str, leaders: Sequence[int], controller: int) -> int:
    """The controller, or a node that leads and is not the controller: what each kind measures is apart."""
    if kind == CONTROLLER:
        return controller
    return min(set(leaders) - {controller}, default=controller)
