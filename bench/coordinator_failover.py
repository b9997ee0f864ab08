"""kill -9 of the node that coordinates a group, and the time until a commit of that group is taken again.

Three nodes; one partition of `__consumer_offsets` holds a hundred thousand offsets, which its next leader loads before
it serves. The client asks the survivors for the coordinator and commits, again every few milliseconds. Then one of the
offsets that were there before is fetched: loading is over, not left out.
"""

from __future__ import annotations

import contextlib
import time

from bench.clusters import Cluster, describe, until
from bench.offset_commits import (
    commit_error,
    commit_patiently,
    commit_request,
    coordinator_port,
    wait_for_coordinator,
)
from bench.raw_client import Admin, BenchError, check
from bench.raw_frames import BatchShape, produce_frame
from bench.rows import Metrics
from odradek.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)

TOPIC, OFFSETS_TOPIC = "bench-offsets", "__consumer_offsets"
GROUPS, PARTITIONS = 1_000, 100
OFFSET = 42
OVERRIDES = {"offsets.topic.num.partitions": "1", "offsets.topic.replication.factor": "3"}
FETCH_VERSION = 8
RETRY_S = 0.005
ATTEMPT_S = 2.0
PATIENCE_S = 90.0
SETTLE_S = 1.0


class CoordinatorTrial:
    """A cluster with the offsets, between rounds."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._committed = 0

    def begin(self) -> None:
        """The cluster runs."""
        with Admin(self.cluster.port) as admin:
            frames = [produce_frame(TOPIC, each, BatchShape(1, 1).build()) for each in range(PARTITIONS)]
            admin.create_topic(TOPIC, PARTITIONS, frames, replicas=len(self.cluster.nodes))
            port = wait_for_coordinator(admin, group(0))
        with Admin(port, timeout_s=60.0) as admin:
            for number in range(GROUPS):
                commit_patiently(admin, commit_request(group(number), TOPIC, range(PARTITIONS), OFFSET))

    def coordinator(self) -> int:
        """The node that leads the offsets, once all its replicas are in sync; 0 until then."""
        with contextlib.suppress(OSError, BenchError), Admin(self.cluster.port, timeout_s=5.0) as admin:
            partition = describe(admin, [OFFSETS_TOPIC]).topics[0].partitions[0]
            others = describe(admin, [TOPIC]).topics[0].partitions
            nodes = len(self.cluster.nodes)
            if all(len(each.isr_nodes) == nodes for each in (partition, *others)):
                return partition.leader_id
        return 0

    def round(self) -> Metrics:
        """One failover; everything is as before afterwards."""
        until(lambda: self.coordinator() > 0, "the cluster did not settle", PATIENCE_S, poll_s=0.1)
        time.sleep(SETTLE_S)
        victim = self.coordinator()
        began = time.perf_counter()
        self.cluster.kill(victim)
        try:
            found_ms = self._commit_again(victim, began)
            metrics = {"found_ms": found_ms, "ms": (time.perf_counter() - began) * 1e3}
            self._look_back(victim)
        finally:
            self.cluster.ready_s(victim)
        return metrics

    def _commit_again(self, victim: int, began: float) -> float:
        """Until a commit is taken; ms until a survivor named another coordinator."""
        self._committed += 1
        request = commit_request(group(0), TOPIC, range(1), OFFSET + self._committed)
        dead = self.cluster.nodes[victim].port
        found_ms = 0.0
        while time.perf_counter() - began < PATIENCE_S:
            with contextlib.suppress(OSError, BenchError):
                with Admin(self.cluster.port, timeout_s=ATTEMPT_S) as admin:
                    error, port = coordinator_port(admin, request.group_id)
                if not error and port != dead:
                    found_ms = found_ms or (time.perf_counter() - began) * 1e3
                    with Admin(port, timeout_s=ATTEMPT_S) as admin:
                        if not commit_error(admin, request):
                            return found_ms
            time.sleep(RETRY_S)
        raise BenchError(f"no commit was taken within {PATIENCE_S:.0f} s")

    def _look_back(self, victim: int) -> None:
        """The last group's offsets are there too."""
        with Admin(self.cluster.port) as admin:
            error, port = coordinator_port(admin, group(GROUPS - 1))
        check(error, "FindCoordinator")
        topics = [OffsetFetchRequestTopics(TOPIC, partition_indexes=list(range(PARTITIONS)))]
        request = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group(GROUPS - 1), topics=topics)])
        with Admin(port) as admin:
            answer = admin.ask(request, FETCH_VERSION, OffsetFetchResponse)
        found = [one.committed_offset for each in answer.groups[0].topics for one in each.partitions]
        if found != [OFFSET] * PARTITIONS:
            raise BenchError(f"{found.count(OFFSET)} of {PARTITIONS} offsets are left")


def group(number: int) -> str:
    return f"bench-group-{number:04}"
