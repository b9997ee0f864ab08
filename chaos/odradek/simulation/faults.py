"""What goes wrong: each fault by its name, drawn by weight at random moments until the chaos is over, then mended."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from odradek.simulation import disk_faults
from odradek.simulation.damage import DiskDamage
from odradek.simulation.disk import DiskSpeed
from odradek.simulation.network import Weather
from odradek.simulation.scheduler import MS

if TYPE_CHECKING:
    from odradek.metadata.image import PartitionImage
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.decision_log import Decision
    from odradek.simulation.machine import Machine
    from odradek.simulation.transaction_model import PartitionTransactions

HOUR_MS = 3_600_000


class Nemesis:
    """Injects faults between `start` and `heal`."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._active = False
        self._faults: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "kill all": self._kill_all,
            "restart": self._restart,
            "pause": self._pause,
            "power loss": self._power_loss,
            "slow disk": self._slow_disk,
            "disk full": lambda: self._fail_disk(errno.ENOSPC),
            "disk error": lambda: self._fail_disk(errno.EIO),
            "fsync error": self._fail_sync,
            "disk fails at": self._fail_at,
            "ends at": self._end_at,
            "clock jump": self._jump_clock,
            "bad network": self._bad_network,
            "cut clients": self._cut_clients,
            "partition": self._partition,
            "one-way partition": self._one_way,
            "bridge partition": self._bridge,
            "isolate": self._isolate,
            "cut streams": self._cut_streams,
            "isolate leader": self._isolate_leader,
            "lossy controller": self._lossy_controller,
            "power loss at a vote": self._power_loss_at_vote,
            "kill the controller": self._kill_controller,
            "pause a coordinator": self._pause_coordinator,
            "mute a coordinator": self._mute_coordinator,
            "mute a client": self._mute_client,
            "kill at a decision": self._kill_at_decision,
        }
        self._faults |= {
            "at growth": self._arm_growth,
            "at shrink": self._arm_shrink,
            "dance": self._dance,
            "quiet loss": self._quiet_loss,
            "slow link": self._slow_link,
            "power loss while writing": self._power_loss_unsynced,
            "move": self._move,
        }
        damage = DiskDamage(cluster, rng, self._note, self._later)
        self._faults |= {
            "files lost": damage.lose_files,
            "disk replaced": damage.replace,
            "voter replaced": damage.replace_voter,
            "rot": damage.rot,
        }
        self._waits_for_unsynced = False
        self._waits_for_vote = False
        self._waits_for_decision = False
        self._late_producer = -1
        self._ended_there: set[PartitionTransactions] = set()
        self._waits_for_growth = False
        self._waits_for_shrink = False

    def start(self) -> None:
        self._active = True
        self._plan()

    def _plan(self) -> None:
        low, high = self._cluster.scenario.fault_interval_ms
        self._cluster.scheduler.after(self._rng.randrange(low, high) * MS, self._inject)

    def _inject(self) -> None:
        if not self._active:
            return
        weights = self._cluster.scenario.faults
        if weights:
            (name,) = self._rng.choices(list(weights), list(weights.values()))
            self._faults[name]()
        self._plan()

    def heal(self) -> None:
        """Nothing is wrong any more: everything runs, and nothing lies between."""
        self._active = False
        cluster = self._cluster
        cluster.trace.note("nemesis", "heals")
        cluster.network.weather = Weather()
        cluster.network.answers_lost = 0.0
        cluster.network.speed_up()
        cluster.network.unblock_all()
        cluster.network.let_go()
        for machine in cluster.machines.values():
            disk_faults.mend(machine)
            _mend(machine.speed)
            machine.clock.jump_wall(-machine.clock.jumped_ms)
            if machine.process is not None and machine.process.paused:
                machine.process.resume()
            if machine.process is not None and (machine.disk_faults or machine.process.stopping):
                machine.kill()
            machine.start()

    # -- parts ---------------------------------------------------------------------------------------------------

    def _note(self, what: str, *details: object) -> None:
        self._cluster.trace.note("nemesis", what, *details)
        self._cluster.trace.count(f"fault: {what}")

    def _later(self, low_ms: int, high_ms: int, action: Callable[[], None]) -> None:
        def act() -> None:
            if self._active:
                action()

        self._cluster.scheduler.after(self._rng.randrange(low_ms, high_ms) * MS, act)

    def _any_running(self) -> Machine | None:
        running = [machine for machine in self._cluster.machines.values() if machine.running]
        return self._rng.choice(running) if running else None

    # -- processes -----------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        """Mostly while it has work under way: that is when it matters."""
        machine = self._any_running()
        if machine is not None:
            self._note("kill", machine.host)
            machine.kill()
            self._later(20, 1_500, machine.start)

    def _kill_all(self) -> None:
        self._note("kill all")
        for machine in self._cluster.machines.values():
            machine.kill()
            self._later(20, 2_500, machine.start)

    def _restart(self) -> None:
        machine = self._any_running()
        if machine is not None:
            self._note("restart", machine.host)
            machine.stop()
            self._start_again(machine)

    def _start_again(self, machine: Machine) -> None:
        """As soon as it has stopped."""
        if machine.process is None:
            machine.start()
        else:
            self._later(20, 800, lambda: self._start_again(machine))

    def _pause(self) -> None:
        machine = self._any_running()
        if machine is not None:
            self._pause_one(machine, 50, self._rng.choice((400, 6_000)))

    def _pause_one(self, machine: Machine, low_ms: int, high_ms: int) -> None:
        process = machine.process
        if process is not None and not process.paused:
            self._note("pause", machine.host)
            process.pause()
            self._later(low_ms, high_ms, lambda: process.resume() if process.alive else None)

    def _power_loss(self) -> None:
        machine = self._any_running()
        if machine is not None and self._cluster.may_lose_power(machine):
            self._note("power loss", machine.host)
            machine.lose_power()
            self._later(300, 3_000, machine.start)

    def _power_loss_at_vote(self) -> None:
        """The next node that gives its vote goes off right after."""
        self._waits_for_vote = True

    def on_vote(self, machine: Machine) -> None:
        """A node tells another that it has its vote."""
        if self._waits_for_vote and self._active:
            self._waits_for_vote = False
            self._later(1, 12, lambda: self._lose_power(machine))

    def _lose_power(self, machine: Machine) -> None:
        if machine.powered and self._cluster.may_lose_power(machine):
            self._note("power loss at a vote", machine.host)
            machine.lose_power()
            self._later(5, 400, machine.start)

    def _kill_controller(self) -> None:
        for machine in self._cluster.machines.values():
            if machine.running and machine.node is not None and machine.node.quorum.raft.is_leader:
                self._note("kill the controller", machine.host)
                machine.kill()
                self._later(5, 400, machine.start)

    def _coordinator(self) -> Machine | None:
        """Of some groups or transactions, if it runs."""
        topics = self._cluster.invariants.metadata.image.topics
        found = [topics[name] for name in ("__consumer_offsets", "__transaction_state") if name in topics]
        leaders = [p.leader for topic in found for p in topic.partitions.values() if p.leader >= 0]
        machine = self._cluster.machines[self._rng.choice(leaders)] if leaders else None
        return machine if machine is not None and machine.running else None

    def _pause_coordinator(self) -> None:
        """For so long that there is another when it goes on."""
        machine = self._coordinator()
        if machine is not None:
            self._pause_one(machine, 3_200, 6_000)

    def _mute_coordinator(self) -> None:
        """What it says to other nodes arrives only when there is another, who has said it again."""
        machine = self._coordinator()
        if machine is None:
            return
        self._note("mute a coordinator", machine.host)
        network = self._cluster.network
        network.unblock_all()
        network.block([(machine.host, host) for host in self._hosts() if host != machine.host])
        self._later(1_200, 2_400, network.unblock_all)

    def _kill_at_decision(self) -> None:
        """The coordinator of the next transaction that is to end: its markers arrive when others have long written
        them, and the next transaction may have begun.
        """
        self._waits_for_decision = self._late_producer < 0

    def on_decision(self, machine: Machine, decision: Decision) -> None:
        """A coordinator learns that its decision about a transaction is committed."""
        topics = self._cluster.invariants.metadata.image.topics
        leaders = {
            topics[topic].partitions[index].leader
            for topic, index in decision.partitions
            if topic in self._cluster.topics and topic in topics
        }
        others = leaders - {machine.id}
        all_run = all(each.running for each in self._cluster.machines.values())
        if not (self._waits_for_decision and self._active and others and all_run):
            return
        self._waits_for_decision = False
        self._late_producer = decision.producer[0]
        self._ended_there.clear()
        self._note("kill at a decision", machine.host)
        self._cluster.network.held.add(machine.host)
        self._later(1, 4, machine.kill)
        self._later(2_000, 3_000, self._let_go)
        self._later(3_000, 3_500, machine.start)

    def _let_go(self) -> None:
        self._late_producer = -1
        self._cluster.network.let_go()

    def on_transaction(self, transactions: PartitionTransactions) -> None:
        """Something was committed to a partition: perhaps the next transaction of that producer, after the decided one
        has ended there.
        """
        if self._late_producer < 0:
            return
        is_open = transactions.is_open(self._late_producer)
        if not is_open and transactions.has_ended(self._late_producer):
            self._ended_there.add(transactions)
        elif is_open and transactions in self._ended_there:
            self._let_go()

    def _mute_client(self) -> None:
        """What it asks of one broker arrives when it has long given up."""
        client = self._rng.choice([*self._cluster.transactional, *self._cluster.producers])
        host = self._rng.choice(self._cluster.broker_hosts)
        self._note("mute a client", client.name, host)
        network, pairs = self._cluster.network, [(client.name, host)]
        network.block(pairs)
        self._later(2_200, 3_500, lambda: network.unblock(pairs))

    # -- disks ---------------------------------------------------------------------------------------------------

    def _slow_disk(self) -> None:
        machine = self._any_running()
        if machine is not None:
            self._note("slow disk", machine.host)
            machine.speed.slow = self._rng.choice((0.2, 1.0))
            machine.speed.slow_us = (10 * MS, self._rng.choice((200, 1_500)) * MS)
            self._later(500, 4_000, lambda: _mend(machine.speed))

    def _fail_disk(self, error: int) -> None:
        machine = self._any_running()
        if machine is None:
            return
        self._note("disk full" if error == errno.ENOSPC else "disk error", machine.host)
        faults = machine.disk.faults
        faults.fail_change_at = faults.changes + self._rng.randrange(0, 30)
        faults.error = error
        faults.sticky = self._rng.random() < 0.7
        self._repair_later(machine)

    def _fail_sync(self) -> None:
        machine = self._any_running()
        if machine is not None:
            self._note("fsync error", machine.host)
            faults = machine.disk.faults
            faults.fail_sync_at = faults.syncs + self._rng.randrange(0, 10)
            faults.sticky = self._rng.random() < 0.5
            self._repair_later(machine)

    def _move(self) -> None:
        """A replica goes to another log directory of its broker, or back."""
        machine = self._any_running()
        if machine is None or machine.process is None or not machine.process.replicates:
            return
        process = machine.process
        name = self._rng.choice([*process.node.partitions, None])
        path = self._rng.choice([path for path, _ in process.node.log_directories()])
        if name is not None:
            self._note("move", machine.host)
            self._cluster.trace.note("nemesis", "moves", *name, path)

            def alter() -> None:
                process.node.replicas.moves.alter(name, path)

            process.happen("alter log directory", alter)

    def _fail_at(self) -> None:
        """At a chosen kind of write, or at a read."""
        machine = self._any_running()
        if machine is None:
            return

        def told(name: str) -> None:
            self._note(f"disk fails at: {name}", machine.host)
            self._repair_later(machine)

        waits_for = disk_faults.strike(machine, self._rng, told)
        self._cluster.trace.note("nemesis", "disk will fail at", machine.host, waits_for)

    def _end_at(self) -> None:
        """The process is killed, or the machine goes off, in the middle of a compaction, or of what follows it."""
        machine = self._any_running()
        if machine is not None:
            waits_for = disk_faults.end_at(
                machine, self._rng, lambda name: self._note(f"ends at: {name}", machine.host)
            )
            self._cluster.trace.note("nemesis", "will end at", machine.host, waits_for)

    def ended(self, machine: Machine) -> None:
        """A process that has ended so is started anew, and may not even come to the end of its start."""
        again = self._active and self._rng.random() < 0.4

        def start() -> None:
            if again and machine.process is None:
                disk_faults.end_at(
                    machine, self._rng, lambda name: self._note(f"ends again at: {name}", machine.host)
                )
            machine.start()

        self._later(20, 1_000, start)

    def _repair_later(self, machine: Machine) -> None:
        """Somebody looks after the disk and starts the process anew."""
        machine.disk_faults += 1
        lives = machine.lives

        def repair() -> None:
            if machine.lives == lives and machine.process is not None:
                self._note("repair", machine.host)
                machine.kill()
                machine.start()

        self._later(500, 4_000, repair)

    # -- clocks --------------------------------------------------------------------------------------------------

    def _jump_clock(self) -> None:
        machine = self._any_running()
        if machine is not None:
            jump = self._rng.choice((-HOUR_MS, HOUR_MS, -5_000, 5_000))
            self._note("clock jump", machine.host, jump)
            machine.clock.jump_wall(jump)

    # -- network -------------------------------------------------------------------------------------------------

    def _bad_network(self) -> None:
        self._note("bad network")
        rng = self._rng
        self._cluster.network.weather = Weather(
            latency_us=(80, rng.choice((400, 5_000, 30_000))),
            drop=rng.choice((0.0, 0.05, 0.2)),
            duplicate=rng.choice((0.0, 0.1)),
            slow=rng.choice((0.0, 0.02, 0.1)),
        )
        self._later(300, 4_000, self._calm)

    def _calm(self) -> None:
        self._cluster.network.weather = Weather()

    def _cut_clients(self) -> None:
        """Connections break."""
        network = self._cluster.network
        machine = self._any_running()
        if machine is None:
            return
        self._note("cut clients", machine.host)
        for stream in network.streams_of(machine.host):
            if self._rng.random() < 0.5 and stream.peer(machine.host).startswith("c"):
                stream.reset("reset by the network")

    def _cut_streams(self) -> None:
        """Streams between nodes break."""
        machine = self._any_running()
        if machine is None:
            return
        self._note("cut streams", machine.host)
        for stream in self._cluster.network.streams_of(machine.host):
            if stream.peer(machine.host).startswith("n") and self._rng.random() < 0.7:
                stream.reset("reset by the network")

    def _hosts(self) -> list[str]:
        return [machine.host for machine in self._cluster.machines.values()]

    def _block(self, what: str, pairs: list[tuple[str, str]], *details: object) -> None:
        self._note(what, *details)
        self._cluster.network.unblock_all()
        self._cluster.network.block(pairs)
        self._later(300, self._rng.choice((2_000, 8_000)), self._cluster.network.unblock_all)

    def _partition(self) -> None:
        hosts = self._hosts()
        group = [host for host in hosts if self._rng.random() < 0.5]
        rest = [host for host in hosts if host not in group]
        pairs = [(one, other) for one in group for other in rest]
        pairs += [(other, one) for one, other in pairs]
        clients = self._cluster.client_names
        if self._rng.random() < 0.5:  # clients are on one side
            far = group if self._rng.random() < 0.5 else rest
            for host in far:
                pairs += [(name, host) for name in clients] + [(host, name) for name in clients]
        self._block("partition", pairs, " ".join(group), "|", " ".join(rest))

    def _one_way(self) -> None:
        hosts = self._hosts()
        sender = self._rng.choice(hosts)
        deaf = [host for host in hosts if host != sender and self._rng.random() < 0.7]
        pairs = [(sender, host) for host in deaf]
        if self._rng.random() < 0.5:
            pairs = [(to, start) for start, to in pairs]
        self._block("one-way partition", pairs, *(f"{a}->{b}" for a, b in pairs))

    def _bridge(self) -> None:
        """Two sides that see each other only through one node."""
        hosts = self._hosts()
        self._rng.shuffle(hosts)
        middle = hosts.pop()
        half = len(hosts) // 2
        pairs = [(one, other) for one in hosts[:half] for other in hosts[half:]]
        pairs += [(other, one) for one, other in pairs]
        self._block("bridge partition", pairs, middle)

    def _brokers_but(self, one: Machine) -> list[Machine]:
        """Running brokers, but not this one."""
        machines = self._cluster.machines.values()
        return [m for m in machines if m is not one and m.running and self._cluster.is_broker(m.id)]

    def _leader_of_some_partition(self) -> Machine | None:
        leaders = [p.leader for _, p in self._cluster.invariants.metadata.partitions() if p.leader >= 0]
        return self._cluster.machines[self._rng.choice(leaders)] if leaders else None

    def _isolate_leader(self) -> None:
        """From brokers, controllers and clients in turns: who can still be reached makes the difference."""
        leader = self._leader_of_some_partition()
        if leader is None:
            return
        others = [host for host in self._hosts() if host != leader.host]
        if self._rng.random() < 0.5:
            others = [self._rng.choice(others)]
        pairs = [(leader.host, other) for other in others]
        if self._rng.random() < 0.7:
            pairs += [(other, leader.host) for other in others]
        self._block("isolate leader", pairs, *(f"{a}->{b}" for a, b in pairs))

    # -- at the moment when the ISR changes ------------------------------------------------------------------------

    def _arm_growth(self) -> None:
        self._waits_for_growth = True

    def _arm_shrink(self) -> None:
        self._waits_for_shrink = True

    def on_isr(self, old: PartitionImage, new: PartitionImage) -> None:
        """The controller has another ISR of a partition; nobody else knows yet."""
        if not self._active or new.leader < 0:
            return
        grown, gone = set(new.isr) - set(old.isr), set(old.isr) - set(new.isr)
        if grown and self._waits_for_growth and new.leader == old.leader:
            self._waits_for_growth = False
            self._at_growth(self._host(new.leader), [self._host(each) for each in sorted(grown)])
        elif gone and self._waits_for_shrink and len(new.isr) > 1:
            self._waits_for_shrink = False
            self._at_shrink(new.leader, [each for each in new.isr if each != new.leader], sorted(gone))

    def _host(self, node_id: int) -> str:
        return self._cluster.machines[node_id].host

    def _controller_hosts(self) -> list[str]:
        machines = self._cluster.machines.values()
        return [m.host for m in machines if m.node is not None and m.node.quorum.raft.is_leader]

    def _at_growth(self, leader: str, joined: list[str]) -> None:
        """The leader does not hear that somebody has joined, nor of him any more; others go on with it."""
        silent = [host for host in (*self._controller_hosts(), *joined) if host != leader]
        self._block("at growth", [(host, leader) for host in silent], leader, *silent)
        for stream in self._cluster.network.streams_of(leader):
            if stream.peer(leader) in silent and self._rng.random() < 0.7:
                stream.reset("reset by the network")

    def _slow_down(self, pairs: list[tuple[str, str]], latency_ms: tuple[int, int], for_ms: int) -> None:
        self._note("slow link", *(f"{a}->{b}" for a, b in pairs))
        network = self._cluster.network
        network.slow_down(pairs, (latency_ms[0] * MS, latency_ms[1] * MS))
        self._later(for_ms, for_ms + 500, lambda: network.speed_up(pairs))

    def _slow_link(self) -> None:
        hosts = self._hosts()
        pairs = [
            (one, other) for one in hosts for other in hosts if one != other and self._rng.random() < 0.2
        ]
        self._slow_down(pairs, (10, self._rng.choice((100, 1_000))), 2_000)

    def _at_shrink(self, leader: int, others: list[int], gone: list[int]) -> None:
        """Those who stay do not hear of the high watermark that now moves; then the leader dies. Who has left, and
        comes back to the next leader, is slow to get anything from it.
        """
        self._slow_down(
            [(self._host(other), self._host(each)) for other in others for each in gone], (50, 500), 5_000
        )
        machine = self._cluster.machines[leader]
        pairs = [(machine.host, self._host(other)) for other in others]
        self._note("at shrink", *(f"{a}->{b}" for a, b in pairs))
        self._cluster.network.block(pairs)

        def away() -> None:
            self._cluster.network.unblock_all()
            if not machine.running:
                return
            if self._rng.random() < 0.5:
                self._note("kill", machine.host)
                machine.kill()
                self._later(800, 3_000, machine.start)
            else:
                self._pause_one(machine, 1_600, 3_000)

        self._later(3, 60, away)

    def _dance(self) -> None:
        """A follower is left behind; the leader is away until it is replaced, perhaps by that follower; it comes back,
        and leads again as soon as it is in sync, over a log that is shorter than it was.
        """
        leader = self._leader_of_some_partition()
        if leader is None or not leader.running:
            return
        brokers = self._brokers_but(leader)
        if not brokers:
            return
        behind = self._rng.choice(brokers)
        self._block("dance", [(leader.host, behind.host)], leader.host, behind.host)

        def away() -> None:
            self._cluster.network.unblock_all()
            if self._rng.random() < 0.6:  # what the next leader writes would hide how much shorter its log is
                self._cluster.quiet_until_us = self._cluster.scheduler.now_us + 6_000 * MS
            self._pause_one(leader, 1_550, 2_000)
            self._later(2_000, 2_200, lambda: self._lead_again(leader, 30))

        self._later(200, 700, away)

    def _lead_again(self, machine: Machine, tries: int) -> None:
        """Whoever leads instead goes, once this one is in sync again."""
        found = [p for _, p in self._cluster.invariants.metadata.partitions() if machine.id in p.isr]
        others = [p for p in found if p.leader >= 0 and p.leader != machine.id]
        if not others or not machine.running:
            if tries:
                self._later(90, 110, lambda: self._lead_again(machine, tries - 1))
            return
        rival = self._cluster.machines[self._rng.choice(others).leader]
        if rival.running:
            self._note("kill", rival.host)
            rest = [host for host in self._hosts() if host not in (machine.host, rival.host)]
            self._slow_down([(host, machine.host) for host in rest], (30, 200), 1_000)
            rival.kill()
            self._cluster.quiet_until_us = 0
            self._later(500, 2_000, rival.start)

    def _quiet_loss(self) -> None:
        """While nobody writes, a follower loses power and comes back, and its fetches reach the leader only later."""
        leader = self._leader_of_some_partition()
        followers = self._brokers_but(leader) if leader is not None else []
        if leader is None or not followers:
            return
        follower = self._rng.choice(followers)
        if not self._cluster.may_lose_power(follower):
            return
        self._note("quiet loss", follower.host)
        self._cluster.quiet_until_us = self._cluster.scheduler.now_us + 5_000 * MS

        def lose() -> None:
            if follower.powered and self._cluster.may_lose_power(follower):
                follower.lose_power()
                self._slow_down([(follower.host, leader.host)], (2_000, 4_000), 4_500)
                self._later(50, 300, follower.start)

        self._later(50, 200, lose)

    def _power_loss_unsynced(self) -> None:
        """The active controller goes off while what it has appended is not on its disk."""
        self._waits_for_unsynced = True

    def on_unsynced(self, machine: Machine) -> None:
        """A controller that leads has appended."""
        if not self._waits_for_unsynced or not self._active:
            return
        self._waits_for_unsynced = False
        at_us = self._cluster.scheduler.now_us + self._rng.randrange(300, 3_000)

        def lose() -> None:
            if self._active and machine.powered and self._cluster.may_lose_power(machine):
                self._note("power loss while writing", machine.host)
                machine.lose_power()
                self._later(2, 150, machine.start)

        self._cluster.scheduler.at(at_us, lose)

    def _lossy_controller(self) -> None:
        """What the controller answers is late or lost for a while: nobody knows what it has done."""
        self._note("lossy controller")
        self._cluster.network.answers_lost = self._rng.choice((0.3, 0.8))

        def stop() -> None:
            self._cluster.network.answers_lost = 0.0

        self._later(300, 2_000, stop)

    def _isolate(self) -> None:
        """One node alone, or only from the other nodes."""
        hosts = self._hosts()
        alone = self._rng.choice(hosts)
        others = [host for host in hosts if host != alone]
        if self._rng.random() < 0.5:
            others += self._cluster.client_names
        pairs = [(alone, other) for other in others] + [(other, alone) for other in others]
        self._block("isolate", pairs, alone)


def _mend(speed: DiskSpeed) -> None:
    speed.slow, speed.slow_us = 0.02, (20 * MS, 300 * MS)
