"""The partitions this node holds, kept as the metadata image says (Kafka's ReplicaManager).

Follows the image: creates and deletes logs, gives replication the state of each partition, hands changed topic
configurations to the logs. Runs what recurs: the flush at the end of each event, fsync, retention, checkpoints.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from odradek.broker.cordoned import CORDONED, EVERY, cordoned_names
from odradek.broker.directory_assignments import DirectoryAssignments
from odradek.broker.log_moves import LogMoves
from odradek.broker.partition import Partition
from odradek.broker.replication_quotas import ReplicationQuotas
from odradek.metadata.configs import resolve_topic_configs
from odradek.metadata.image import BROKER_RESOURCE, RESERVED_DIRECTORIES, TOPIC_RESOURCE
from odradek.replication.isr import PartitionState, Peer
from odradek.replication.read_replica import RACK_AWARE, preferred_read_replica
from odradek.storage.config import LogConfig
from odradek.wire.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from odradek.broker.metrics import BrokerMetrics
    from odradek.metadata.delta import MetadataDelta
    from odradek.metadata.image import MetadataImage, PartitionImage, TopicImage
    from odradek.ports.clock import Clock
    from odradek.ports.disk import Syncer
    from odradek.replication.driver import ReplicationDriver
    from odradek.storage.data_dir import DataDir
    from odradek.storage.log import Log
    from odradek.storage.manager import LogManager

LeadershipChanged = Callable[[Partition, bool], None]
PartitionName = tuple[str, int]
AT_ONCE = 100
"""Partitions that one change of the image creates, changes or deletes while everybody waits; the rest in slices."""
SLICE_MS = 10
AGING_MS = 2
"""How long retention may hold up everything else at a time."""


class TopicSettings(NamedTuple):
    """What a topic's configuration means here. To resolve it takes long: once per topic, not per partition."""

    log: LogConfig
    min_isr: int


class ReplicaManager:
    """A metadata publisher. `partitions` is read on the hot path."""

    def __init__(
        self,
        node_id: int,
        static: Mapping[str, str],
        logs: LogManager,
        syncer: Syncer,
        clock: Clock,
        metrics: BrokerMetrics,
        log: Any,
        replication: ReplicationDriver,
    ) -> None:
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.on_leadership: LeadershipChanged = lambda partition, leads: None
        self.on_directory_failed: Callable[[], None] = lambda: None
        self.on_cordoned: Callable[[], None] = lambda: None
        """Other log directories are to get no new replicas than before."""
        self._node_id = node_id
        self._static = static
        self._rack_aware = static.get("replica.selector.class") == RACK_AWARE
        self._logs = logs
        self._syncer = syncer
        self._clock = clock
        self._metrics = metrics
        self._warn = log.warning
        self._log = log
        self.dirty: list[Partition] = []
        self.replication = replication
        self._quotas = ReplicationQuotas(node_id, replication.leader_quota, replication.follower_quota)
        self.broker_epoch = -1
        """Of this node's registration; what metadata says of earlier ones does not hold for its disks now."""
        self._registered = False
        logs.on_dir_failure = lambda data_dir, error: self.directory_failed(data_dir.path, error)
        self._image: MetadataImage | None = None
        self.later: Callable[[Callable[[], None]], None] | None = None
        """Runs something after the present event. A node that serves nobody yet has none, and creates all at once."""
        self.applied_offset = -1
        """Of the metadata log: all partitions here are as it has them up to there."""
        self._behind: dict[PartitionName, None] = {}
        """Partitions that are still to be made what the image says; until then they are what they were."""
        self._doomed: dict[PartitionName, Partition] = {}
        """Deleted: they serve nobody any more, their logs are still to go."""
        self._done_at_once = 0
        self._slice_is_due = False
        self._peers_news = False
        self.suspended = False
        """This process did not run for a while, and it is not settled whether it leads what it led."""
        self.is_cleaning: Callable[[PartitionName], bool] = lambda key: False
        """Whether a log is being compacted."""
        self._aging: deque[PartitionName] = deque()
        """Partitions that retention has still to look at."""
        self.assignments = DirectoryAssignments(node_id)
        self.offline: dict[PartitionName, bytes] = {}
        """Partitions without a log, for their directory has failed: its id."""
        self.moves = LogMoves(logs, self.partitions, syncer, clock, log, self._moved)
        self.moves.is_offline = self.offline.__contains__
        self._cordon({})

    # -- asked by handlers ---------------------------------------------------------------------------------------

    def leader_of(self, topic: str, index: int) -> Partition:
        """The partition, if this node leads it; KafkaError tells what is wrong otherwise."""
        partition = self.partitions.get((topic, index))
        if partition is not None:
            if partition.is_leader:
                return partition
            if partition.log.offline:
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if (topic, index) in self.offline:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        image = self._image
        known = image.topics.get(topic) if image is not None else None
        if known is None or index not in known.partitions:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def readable(self, topic: str, index: int) -> Partition:
        """The partition, if this node has a replica of it that consumers may read: committed records are the same
        everywhere (KIP-392). KafkaError as `leader_of`.
        """
        partition = self.partitions.get((topic, index))
        if partition is None or partition.log.offline:
            return self.leader_of(topic, index)
        return partition

    def preferred_read_replica(self, partition: Partition, rack: str, offset: int) -> int:
        """The broker id of the replica in the rack of a consumer, which should read there; -1: here."""
        leader = partition.replica.leader if partition.replica is not None else None
        if not self._rack_aware or leader is None or not partition.is_leader:
            return -1
        preferred = preferred_read_replica(leader, self.replication.peers, rack, offset)
        return -1 if preferred is None else preferred

    def flush(self) -> bool:
        """Write everything staged, send it to followers; what waited is woken. False if an append failed: no answer
        may rely on it.
        """
        written = True
        while self.dirty:
            staged, self.dirty = self.dirty, []
            for partition in staged:
                written = partition.flush() and written
            self.replication.flush()
        self.replication.flush()
        return written

    # -- asked by partitions -------------------------------------------------------------------------------------

    def appended(self, partition: Partition) -> None:
        assert partition.replica is not None
        self.replication.appended(partition.replica)

    def sync(self, partition: Partition) -> None:
        """Start a group-committed fsync of what is written; the high watermark follows where it waits for that."""
        end = partition.log.written_end_offset

        def done(error: OSError | None) -> None:
            if error is None and partition.replica is not None:
                self.replication.synced(partition.replica, end)

        partition.log.sync(self._syncer, done)

    def suspend(self) -> None:
        """Until `resume`, nothing is served by leaderships: there may be other leaders by now."""
        self.suspended = True
        for partition in self.partitions.values():
            partition.suspend()

    def resume(self) -> None:
        if self.suspended:
            self.suspended = False
            for partition in self.partitions.values():
                partition.resume()

    def leading(self, partition: Partition) -> None:
        if self.suspended:
            partition.suspend()
        self.on_leadership(partition, True)

    def failed(self, partition: Partition, error: OSError) -> None:
        if partition.leads:
            self._resign(partition, ErrorCode.KAFKA_STORAGE_ERROR)

    # -- the image -----------------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        """Follow the image; deletions first, as a name may have been taken again."""
        before, self._image = self._image, image
        self._done_at_once = 0
        for name, topic in delta.topics_deleted.items():
            for index in topic.partitions:
                self.offline.pop((name, index), None)
                self._delete(name, index)
        if delta.brokers_changed:
            self._brokers_changed(image)
            self._peers_news = True
        self._follow(
            [
                (name, index)
                for name in (*delta.topics_created, *delta.topics_changed)
                for index in _changed(image.topics[name], before)
            ]
        )
        if not self._behind:
            self._caught_up()
        self._quotas.configs_changed(delta.configs_changed, image.configs, self._clock.monotonic_ms())
        if (BROKER_RESOURCE, str(self._node_id)) in delta.configs_changed or before is None:
            self._cordon(image.configs.get((BROKER_RESOURCE, str(self._node_id)), {}))
        if any(kind != TOPIC_RESOURCE for kind, _ in delta.configs_changed):
            self.moves.throttle(self._quotas.alter_log_dirs_rate(image.configs), self._clock.monotonic_ms())
            self._configure({name for name, _ in self.partitions}, image)
        else:
            self._configure({name for _, name in delta.configs_changed}, image)

    def _brokers_changed(self, image: MetadataImage) -> None:
        own = image.brokers.get(self._node_id)
        if own is None or own.epoch != self.broker_epoch:
            return
        peers = {
            broker.id: Peer(broker.epoch, broker.fenced, broker.in_controlled_shutdown, broker.rack)
            for broker in image.brokers.values()
        }
        self.replication.registered(self.broker_epoch, peers)
        if not self._registered:
            self._registered = True
            self._set_strays_aside(image)
            for topic in image.topics.values():
                self._follow([(topic.name, index) for index in topic.partitions])

    def _set_strays_aside(self, image: MetadataImage) -> None:
        """Logs of topics that were deleted, or moved to other brokers, while this one did not run: what has the name
        now, if anything, is another topic.
        """
        for (name, index), log in list(self._logs.logs.items()):
            topic = image.topics.get(name)
            wanted = topic.partitions.get(index) if topic is not None else None
            if (
                topic is not None
                and wanted is not None
                and self._node_id in wanted.replicas
                and log.topic_id in (None, topic.id)
            ):
                continue
            if (name, index) in self.partitions:
                self._delete(name, index)
                continue
            self._warn("a stray log is set aside", topic=name, partition=index, directory=log.dir)
            try:
                self._logs.set_aside(name, index)
            except KafkaError as error:
                self._warn("a stray log stays where it is", topic=name, partition=index, error=str(error))

    def registration_answered(self, broker_epoch: int) -> None:
        """This node is registered with this epoch; its record may be in the image already, or on its way."""
        self.broker_epoch = self.assignments.broker_epoch = broker_epoch
        if self._image is not None:
            self._brokers_changed(self._image)
            self._peers_news = True
            if not self._behind:
                self._caught_up()

    def _follow(self, keys: list[PartitionName]) -> None:
        """Take these partitions as metadata has them now: some at once, the rest in slices, own leaderships first."""
        if self.later is None:
            now, rest = keys, []
        else:
            room = max(0, AT_ONCE - self._done_at_once)
            self._done_at_once += len(keys)
            if len(keys) > room:
                keys.sort(key=self._is_led_elsewhere)
            now, rest = keys[:room], keys[room:]
        settings: dict[str, TopicSettings] = {}
        for key in now:
            self._behind.pop(key, None)
            self._follow_one(key, settings)
        if rest:
            self._behind.update(dict.fromkeys(rest))
            self._slice_later()

    def _is_led_elsewhere(self, key: PartitionName) -> bool:
        assert self._image is not None
        return self._image.topics[key[0]].partitions[key[1]].leader != self._node_id

    def _follow_one(self, key: PartitionName, settings: dict[str, TopicSettings]) -> None:
        name, index = key
        image = self._image
        assert image is not None
        topic = image.topics.get(name)
        wanted = topic.partitions.get(index) if topic is not None else None
        if topic is None or wanted is None:
            return  # deleted meanwhile
        partition = self.partitions.get(key)
        if self._node_id not in wanted.replicas:
            self.offline.pop(key, None)
            if partition is not None:
                self._delete(name, index)
            return
        if partition is None:
            if name not in settings:
                settings[name] = self._settings(name, image)
            partition = self._create(topic, index, settings[name], wanted)
        if partition is not None and self._registered:
            self._apply(partition, wanted)

    def _slice_later(self) -> None:
        if not self._slice_is_due and self.later is not None:
            self._slice_is_due = True
            self.later(self._slice)

    def _slice(self) -> None:
        """A piece of what large changes of the image left to do."""
        self._slice_is_due = False
        end_ms = self._clock.monotonic_ms() + SLICE_MS
        settings: dict[str, TopicSettings] = {}
        while self._behind and self._clock.monotonic_ms() < end_ms:
            key = next(iter(self._behind))
            del self._behind[key]
            self._follow_one(key, settings)
        while self._doomed and self._clock.monotonic_ms() < end_ms:
            self._bury(next(iter(self._doomed)))
        if not self._behind:
            self._caught_up()
        if self._behind or self._doomed:
            self._slice_later()

    def _caught_up(self) -> None:
        """Everything is as the image has it."""
        assert self._image is not None
        self.applied_offset = self._image.offset
        if self._peers_news:
            self._peers_news = False
            self.replication.peers_changed()
        self.assignments.send()

    def _apply(self, partition: Partition, wanted: PartitionImage) -> None:
        """Hand replication what metadata has; leadership that is over is given up first."""
        assert partition.replica is not None
        lost = wanted.leader != self._node_id or wanted.leader_epoch > partition.leader_epoch
        if partition.leads and lost:
            self._resign(partition, ErrorCode.NOT_LEADER_OR_FOLLOWER)
        state = PartitionState(
            wanted.leader, wanted.leader_epoch, wanted.partition_epoch, wanted.isr, wanted.replicas
        )
        self.replication.apply(partition.replica, state)
        partition.configured()
        actual = partition.log.dir_id
        if actual is not None:
            key = partition.topic_id, partition.index
            self.assignments.note(key, wanted.directory(self._node_id), actual)

    def _resign(self, partition: Partition, error: ErrorCode) -> None:
        partition.resign(error)
        self.on_leadership(partition, False)

    def _create(
        self, topic: TopicImage, index: int, settings: TopicSettings, wanted: PartitionImage
    ) -> Partition | None:
        key = topic.name, index
        if key in self._doomed:
            self._bury(key)
        data_dir = self._directory_of(key, topic, wanted)
        try:
            if data_dir.offline:
                why = f"Partition {topic.name}-{index} is in an offline log directory"
                raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, why)
            log = self._logs.create_log(
                topic.name, index, topic.id, settings.log, wall_ms=self._clock.wall_ms(),
                dir_id=data_dir.directory_id,
            )  # fmt: skip
        except KafkaError as error:
            if self.offline.get(key) != data_dir.directory_id:
                self._warn("no log for a partition", topic=topic.name, partition=index, error=str(error))
            if error.code is ErrorCode.KAFKA_STORAGE_ERROR:
                self.offline[key] = data_dir.directory_id
                self._tell_of(topic.id, index, wanted, data_dir.directory_id)
            return None
        self.offline.pop(key, None)
        # A log that was there was opened before its topic's configuration was known.
        log.set_config(settings.log)
        partition = Partition(topic.name, topic.id, index, log, self._metrics.topic(topic.name), self)
        partition.replica = self.replication.add(
            topic.name,
            topic.id,
            index,
            log,
            partition,
            high_watermark=self._logs.high_watermarks.get((topic.name, index), 0),
            min_isr=settings.min_isr,
        )
        partition.high_watermark = partition.replica.high_watermark
        self.partitions[topic.name, index] = partition
        self.moves.resume(partition)
        return partition

    def _directory_of(self, key: PartitionName, topic: TopicImage, wanted: PartitionImage) -> DataDir:
        """Where a partition's log is, or is to be: where metadata has it, if that is here; else where somebody wants
        it, or where the fewest are. It may be offline.
        """
        dirs = self._logs.dirs
        known = wanted.directory(self._node_id)
        told = next((each for each in dirs if each.directory_id == known and each.is_known), None)
        log = self._logs.get(*key)
        if log is not None and not (told is not None and told.offline):
            return self._logs.dir_of(log)
        wish = self.moves.wish(key)
        if told is not None:
            return told
        unknown = next((each for each in dirs if each.offline and not each.is_known), None)
        if unknown is not None and int.from_bytes(known, "big") >= RESERVED_DIRECTORIES:
            return unknown  # the disk that does not even tell its id may well have it
        online = [each.directory_id for each in dirs if not each.offline]
        return self._logs.choose_dir(wish if wish in online else None) if online else dirs[0]

    def _tell_of(self, topic_id: bytes, index: int, wanted: PartitionImage, directory: bytes) -> None:
        """The controller has to know in which failed directory a replica is: only then it looks for other leaders."""
        if int.from_bytes(directory, "big") >= RESERVED_DIRECTORIES:
            self.assignments.note((topic_id, index), wanted.directory(self._node_id), directory)

    def _moved(self, partition: Partition, log: Log) -> None:
        """A replica is in another log directory now, in a log that has the same records."""
        replica, image = partition.replica, self._image
        assert replica is not None and image is not None
        partition.log = replica.log = log
        replica.memo = None
        partition.configured()
        topic = image.topics.get(partition.topic)
        wanted = topic.partitions.get(partition.index) if topic is not None else None
        if (
            topic is not None
            and wanted is not None
            and topic.id == partition.topic_id
            and log.dir_id is not None
        ):
            self._tell_of(topic.id, partition.index, wanted, log.dir_id)
            self.assignments.send()

    def _cordon(self, own: Mapping[str, str]) -> None:
        """cordoned.log.dirs, of this broker: paths, or * for all."""
        value = own.get(CORDONED, self._static.get(CORDONED, ""))
        paths = set(cordoned_names(value))
        # A directory is named as in log.dirs, which may be a relative path, or by its path.
        names = (self._static.get("log.dirs") or self._static.get("log.dir", "")).split(",")
        known = dict(zip_longest((data_dir.path for data_dir in self._logs.dirs), names, fillvalue=""))
        cordoned = frozenset(
            path for path, name in known.items() if not paths.isdisjoint((EVERY, name.strip(), path)) and path
        )
        if cordoned != self._logs.cordoned:
            self._logs.cordoned = cordoned
            self.on_cordoned()

    def _delete(self, name: str, index: int) -> None:
        self.moves.cancel((name, index))
        partition = self.partitions.pop((name, index), None)
        self._behind.pop((name, index), None)
        if partition is None:
            return
        if partition.leads:
            self._resign(partition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        self.assignments.forget((partition.topic_id, index))
        self._doomed[name, index] = partition
        self._done_at_once += 1
        if self.later is None or self._done_at_once <= AT_ONCE:
            self._bury((name, index))
        else:
            self._slice_later()

    def close(self) -> None:
        """What is deleted leaves the disk before the node does; what is new waits for the next start."""
        self._behind.clear()
        for key in list(self._doomed):
            self._bury(key)

    def _bury(self, key: PartitionName) -> None:
        partition = self._doomed.pop(key)
        name, index = key
        if partition.replica is not None:
            self.replication.remove(partition.replica)
        try:
            self._logs.delete_log(name, index, wall_ms=self._clock.wall_ms())
        except KafkaError as error:
            self._warn("a deleted partition stays on disk", topic=name, partition=index, error=str(error))

    def _configure(self, topics: set[str], image: MetadataImage) -> None:
        if not topics:
            return
        known: dict[str, TopicSettings] = {}
        for (name, _), partition in self.partitions.items():
            if name in topics:
                settings = known.get(name)
                if settings is None:
                    settings = known[name] = self._settings(name, image)
                partition.log.set_config(settings.log)
                partition.configured()
                if partition.replica is not None:
                    self.replication.configure(partition.replica, settings.min_isr)

    def _settings(self, topic: str, image: MetadataImage) -> TopicSettings:
        resolved = resolve_topic_configs(topic, image.configs, self._node_id, self._static)
        return TopicSettings(LogConfig.from_topic_configs(resolved), int(resolved["min.insync.replicas"]))

    # -- what recurs ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: unlink what is due, flush what `flush.ms` asks for, let go of who waits no more."""
        self._logs.tick(self._clock.wall_ms())
        self.assignments.send()
        for partition in self.partitions.values():
            partition.forget_answered()

    def expire_producers(self, expiration_ms: int) -> None:
        """producer.id.expiration.ms."""
        self._logs.expire_producers(self._clock.wall_ms(), expiration_ms)

    def delete_old_segments(self) -> None:
        """Retention. Nothing above the high watermark is ever deleted."""
        if not self._aging:
            self._aging.extend(self.partitions)
            self._delete_some()

    def _delete_some(self) -> None:
        """A few logs at a time: each may have files to rename, and there may be thousands."""
        end_ms = self._clock.monotonic_ms() + AGING_MS
        while self._aging and (self.later is None or self._clock.monotonic_ms() < end_ms):
            key = self._aging.popleft()
            partition = self.partitions.get(key)
            # What goes while a log is compacted would make the work on it useless.
            if partition is not None and not partition.log.offline and not self.is_cleaning(key):
                self.delete_old_segments_of(partition)
        if self._aging and self.later is not None:
            self.later(self._delete_some)

    def delete_old_segments_of(self, partition: Partition) -> None:
        try:
            partition.log.delete_old_segments(self._clock.wall_ms(), partition.high_watermark)
        except KafkaError as error:
            self._warn("retention failed", topic=partition.topic, partition=partition.index, error=str(error))

    def high_watermarks(self) -> dict[tuple[str, int], int]:
        return {key: partition.high_watermark for key, partition in self.partitions.items()}

    def directory_failed(self, directory: str, error: OSError) -> None:
        """The directory of a log that failed to append or sync is not written to again; its partitions are offline."""
        self.moves.directory_failed()
        lost = [each for each in self.partitions.values() if each.log.offline and each.replica is not None]
        self._log.error("log directory offline", directory=directory, error=str(error), partitions=len(lost))
        for partition in lost:
            assert partition.replica is not None
            self.replication.failed(partition.replica, error)
            self.failed(partition, error)
            topic = self._image.topics.get(partition.topic) if self._image is not None else None
            wanted = topic.partitions.get(partition.index) if topic is not None else None
            if wanted is not None and partition.log.dir_id is not None:
                self._tell_of(partition.topic_id, partition.index, wanted, partition.log.dir_id)
        self.on_directory_failed()
        self.assignments.send()


def _changed(topic: TopicImage, before: MetadataImage | None) -> list[int]:
    """Images share what did not change."""
    known = before.topics.get(topic.name) if before is not None else None
    if known is None or known.id != topic.id:
        return list(topic.partitions)
    old = known.partitions
    return [index for index, partition in topic.partitions.items() if partition is not old.get(index)]
