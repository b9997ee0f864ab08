"""Somebody who changes the voters of the metadata quorum (KIP-853): adds those who are none, removes others, and always
those whose disk is gone. And what a dynamic quorum begins with: formatted directories.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from odradek.raft.metadata_log import write_bootstrap_voters
from odradek.raft.voters import Endpoint, ReplicaKey, Voter, VoterSet
from odradek.simulation.client import Client, error_of
from odradek.simulation.machine import DATA
from odradek.simulation.raft_checks import directory_id
from odradek.simulation.scheduler import SECOND
from odradek.storage.data_dir import DataDir
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_raft_voter import AddRaftVoterRequest, Listener
from odradek.wire.messages.remove_raft_voter import RemoveRaftVoterRequest
from odradek.wire.uuid import random_uuid

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.machine import Machine

LISTENER = "CONTROLLER"
DOUBT_US = 12 * SECOND
"""How long a change without an answer may still be on its way."""
VOTERS_MIN = 3
"""Fewer are left only for those whose disk is gone."""


def endpoint(machine: Machine, port: int) -> Endpoint:
    return Endpoint(LISTENER, machine.host, port)


def format_quorum(cluster: Cluster, machines: list[Machine], rng: Random, port: int) -> None:
    """As `kafka-storage format --initial-controllers` does on each of them."""
    voters = VoterSet.of(
        Voter(ReplicaKey(machine.id, random_uuid(rng)), (endpoint(machine, port),)) for machine in machines
    )
    for machine in machines:
        directory = DataDir(machine.disk, DATA)
        (own,) = (voter.key for voter in voters.voters if voter.id == machine.id)
        directory.directory_id = own.directory_id
        directory.write_meta(machine.id, cluster.cluster_id, rng)
        write_bootstrap_voters(machine.disk, DATA, voters, cluster.true_wall_ms())


class VoterAdmin(Client):
    """Until `finish`, whatever comes to its mind; then until every controller is a voter: `done`."""

    def __init__(self, cluster: Cluster, name: str, rng: Random, port: int) -> None:
        super().__init__(cluster, name, rng)
        self._port = port
        self._finishing = False
        self._under_way = 0
        self._doubt_until_us = 0
        self.done = False

    def start(self) -> None:
        self._later()

    def finish(self) -> None:
        self._finishing = True

    def _later(self) -> None:
        """Once nothing is under way."""
        if not self._under_way:
            self.after(self.between(50, 700), self._act)

    @property
    def is_settled(self) -> bool:
        """Whether nothing that was asked may still be carried out."""
        return not self._under_way and self.now_us >= self._doubt_until_us

    def voters(self) -> VoterSet | None:
        """As the controller says that leads, if one does."""
        leading = [
            machine.node.quorum.raft
            for machine in self.cluster.machines.values()
            if machine.node is not None and machine.running and machine.node.quorum.raft.is_leader
        ]
        return max(leading, key=lambda raft: raft.epoch).voters if leading else None

    def gone(self, voters: VoterSet) -> list[Voter]:
        """Voters whose disk was replaced."""
        machines = self.cluster.machines
        return [
            each for each in voters.voters if directory_id(machines[each.id].disk) != each.key.directory_id
        ]

    def missing(self, voters: VoterSet) -> list[ReplicaKey]:
        """Running controllers that are no voters."""
        found = []
        for machine in self.cluster.machines.values():
            if machine.running and self.cluster.is_controller(machine.id):
                key = ReplicaKey(machine.id, directory_id(machine.disk))
                if not voters.contains(key) and machine.id not in voters.ids:
                    found.append(key)
        return found

    def _act(self) -> None:
        voters = self.voters()
        if voters is None:
            self._later()
            return
        gone, missing = self.gone(voters), self.missing(voters)
        controllers = self.cluster.scenario.controllers
        if gone:
            self._remove(gone[0].key)
        elif missing and (self._finishing or self.rng.random() < 0.7):
            self._add(self.rng.choice(missing))
            if not self._finishing and len(voters) >= VOTERS_MIN and self.rng.random() < 0.4:
                self._remove(self.rng.choice(voters.voters).key)  # before the other one is answered
        elif not self._finishing and len(voters) > VOTERS_MIN:
            self._remove(self.rng.choice(voters.voters).key)
        else:
            self.done = self._finishing and len(voters) == controllers
            self._later()

    def _remove(self, key: ReplicaKey) -> None:
        self.cluster.trace.note(self.name, "removes", str(key))
        self._under_way += 1
        request = RemoveRaftVoterRequest(self.cluster.cluster_id, key.id, key.directory_id)
        self.ask(self.any_host(), request, 0, lambda response: self._changed("removed", response))

    def _add(self, key: ReplicaKey) -> None:
        self.cluster.trace.note(self.name, "adds", str(key))
        self._under_way += 1
        machine = self.cluster.machines[key.id]
        request = AddRaftVoterRequest(
            cluster_id=self.cluster.cluster_id,
            timeout_ms=2_000,
            voter_id=key.id,
            voter_directory_id=key.directory_id,
            listeners=[Listener(LISTENER, machine.host, self._port)],
        )
        self.ask(
            self.any_host(), request, self.rng.choice((0, 1)), lambda answer: self._changed("added", answer)
        )

    def _changed(self, what: str, response: Any) -> None:
        code = error_of(response.error_code) if response is not None else None
        self.cluster.trace.note(self.name, what, code.name if code is not None else "no answer")
        self.cluster.trace.count(f"voter {what}: {code.name if code is not None else 'no answer'}")
        assert code is not ErrorCode.UNSUPPORTED_VERSION, "the quorum is not dynamic"
        self._under_way -= 1
        if code is None:
            self._doubt_until_us = self.now_us + DOUBT_US
        self._later()
