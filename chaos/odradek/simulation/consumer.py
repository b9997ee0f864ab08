"""A consumer that reads every partition of the topics from its start, as stock clients fetch: by leader, with sessions.

It checks what it reads on the way: each batch whole (CRC), the next one where the last ended, and the same as what is
committed at that offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from odradek.simulation.client import Client, error_of
from odradek.simulation.compaction_model import check_read, rows_of
from odradek.simulation.partition_model import batch_info
from odradek.simulation.trace import InvariantViolation
from odradek.storage.producers import end_transaction_marker
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
)
from odradek.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from odradek.wire.records import CONTROL_FLAG, BatchHeader, crc_ok, iter_batches

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.partition_model import PartitionModel

EARLIEST = -2
TOPIC_IDS_FROM = 13


@dataclass(slots=True, eq=False)
class Position:
    """Where the consumer is in one partition."""

    topic: str
    index: int
    topic_id: bytes
    offset: int = -1
    """Next offset to read; -1: the start has to be asked for."""
    last_epoch: int = -1
    end: int = 0
    """The high watermark that the last answer told."""
    asking: bool = False
    not_before_us: int = 0
    """It failed: not to be fetched until then."""
    compacted: bool = False
    delivered: set[int] = field(default_factory=set)
    """Base offsets of the batches that the application was given."""
    view: dict[bytes, bytes | None] = field(default_factory=dict)
    """Of a compacted topic: the last value that it was given of each key."""


class Aborts:
    """Which batches of one answer belong to aborted transactions, as stock consumers tell."""

    def __init__(self, told: list[Any]) -> None:
        self._told = sorted(told, key=lambda each: each.first_offset, reverse=True)
        self._aborted: set[int] = set()

    def drop(self, header: BatchHeader, batch: bytes) -> bool:
        while self._told and self._told[-1].first_offset <= header.last_offset:
            self._aborted.add(self._told.pop().producer_id)
        if header.is_control:
            marker = end_transaction_marker(header, batch)
            if marker is not None and not marker.commit:
                self._aborted.discard(header.producer_id)
            return True
        return header.is_transactional and header.producer_id in self._aborted


class Session:
    """A fetch session with one broker (KIP-227), as the client keeps it."""

    def __init__(self) -> None:
        self.id = 0
        self.epoch = 0
        self.told: dict[tuple[object, int], tuple[int, int]] = {}


class Consumer(Client):
    """Reads until `stopped`."""

    def __init__(
        self, cluster: Cluster, name: str, rng: Random, *, version: int, sessions: bool, committed: bool,
        wait_ms: int = 300,
    ) -> None:  # fmt: skip
        """`committed`: isolation.level=read_committed."""
        super().__init__(cluster, name, rng)
        self.committed = committed
        self.version = version
        self.with_sessions = sessions
        self.wait_ms = wait_ms
        self.positions: dict[tuple[str, int], Position] = {}
        self.sessions: dict[str, Session] = {}
        self._fetching: set[str] = set()
        self.read_bytes_max = rng.choice((400, 4_000, 1 << 20))

    def start(self) -> None:
        self.refresh()

    def stop(self) -> None:
        self.stopped = True
        for link in list(self.links.values()):
            link.close()

    def on_metadata(self) -> None:
        for topic in self.topics:
            topic_id = self.topic_ids.get(topic)
            for index in range(self.cluster.partitions_of(topic)):
                position = self.positions.get((topic, index))
                if topic_id is not None and (position is None or position.topic_id != topic_id):
                    compacted = self.cluster.compacts(topic)
                    self.positions[topic, index] = Position(topic, index, topic_id, compacted=compacted)
        self._pump()

    def _pump(self) -> None:
        if self.stopped:
            return
        by_leader: dict[str, list[Position]] = {}
        unknown = False
        for position in self.positions.values():
            leader = self.leaders.get((position.topic, position.index))
            model = self._model(position)
            if model is not None and model.dead:
                continue
            if leader is None:
                unknown = True
            elif position.offset < 0 and position.not_before_us <= self.now_us:
                self._ask_start(position, leader[0])
            elif position.offset >= 0 and position.not_before_us <= self.now_us:
                by_leader.setdefault(leader[0], []).append(position)
        if unknown:
            self.refresh()
        for host, positions in by_leader.items():
            if host not in self._fetching:
                self._fetch(host, positions)

    # -- where a partition begins --------------------------------------------------------------------------------

    def _ask_start(self, position: Position, host: str) -> None:
        if position.asking:
            return
        position.asking = True
        request = ListOffsetsRequest(
            topics=[
                ListOffsetsTopic(
                    name=position.topic,
                    partitions=[ListOffsetsPartition(partition_index=position.index, timestamp=EARLIEST)],
                )
            ]
        )
        self.ask(
            host, request, self.rng.choice((4, 7, 10)), lambda response: self._got_start(position, response)
        )

    def _got_start(self, position: Position, response: Any) -> None:
        position.asking = False
        if response is not None:
            answer = response.topics[0].partitions[0]
            if answer.error_code == 0:
                position.offset = answer.offset
                self._pump()
                return
        self._hold_back(position)

    def _hold_back(self, position: Position) -> None:
        """Try this partition again a little later, with newer metadata."""
        pause_us = self.between(20, 150)
        position.not_before_us = self.now_us + pause_us
        self.refresh()
        self.after(pause_us, self._pump)

    # -- fetching ------------------------------------------------------------------------------------------------

    def _fetch(self, host: str, positions: list[Position]) -> None:
        self._fetching.add(host)
        request = FetchRequest(
            max_wait_ms=self.wait_ms,
            min_bytes=1,
            max_bytes=self.read_bytes_max,
            isolation_level=int(self.committed),
        )
        if self.with_sessions:
            self._fill_incremental(request, host, positions)
        else:
            request.session_epoch = -1
            self._fill(request, positions)
        offsets = {(position.topic, position.index): position.offset for position in positions}
        self.ask(host, request, self.version, lambda response: self._fetched(host, offsets, response))

    def _topic_name(self, position: Position) -> object:
        return position.topic_id if self.version >= TOPIC_IDS_FROM else position.topic

    def _fill(self, request: FetchRequest, positions: list[Position]) -> None:
        topics: dict[object, FetchTopic] = {}
        for position in positions:
            named = self._topic_name(position)
            topic = topics.get(named)
            if topic is None:
                topic = topics[named] = FetchTopic(topic=position.topic, topic_id=position.topic_id)
                if self.version >= TOPIC_IDS_FROM:
                    topic.topic = ""
                else:
                    topic.topic_id = bytes(16)
            topic.partitions.append(
                FetchPartition(
                    partition=position.index,
                    current_leader_epoch=self.leaders[position.topic, position.index][1],
                    fetch_offset=position.offset,
                    last_fetched_epoch=position.last_epoch if self.version >= 12 else -1,
                    partition_max_bytes=self.read_bytes_max,
                )
            )
        request.topics = list(topics.values())

    def _fill_incremental(self, request: FetchRequest, host: str, positions: list[Position]) -> None:
        session = self.sessions.setdefault(host, Session())
        request.session_id, request.session_epoch = session.id, session.epoch
        wanted: dict[tuple[object, int], tuple[int, int]] = {}
        changed = []
        for position in positions:
            key = self._topic_name(position), position.index
            wanted[key] = position.offset, self.leaders[position.topic, position.index][1]
            if session.epoch == 0 or session.told.get(key) != wanted[key]:
                changed.append(position)
        forgotten: dict[object, ForgottenTopic] = {}
        for named, index in session.told:
            if session.epoch and (named, index) not in wanted:
                topic = forgotten.get(named)
                if topic is None:
                    by_id = self.version >= TOPIC_IDS_FROM
                    topic = forgotten[named] = (
                        ForgottenTopic(topic_id=named) if by_id else ForgottenTopic(topic=named)  # type: ignore[arg-type]
                    )
                topic.partitions.append(index)
        request.forgotten_topics_data = list(forgotten.values())
        session.told = wanted
        self._fill(request, changed)

    def _fetched(self, host: str, offsets: dict[tuple[str, int], int], response: Any) -> None:
        self._fetching.discard(host)
        if self.stopped:
            return
        if response is None or not self._keep_session(host, response):
            self.sessions.pop(host, None)
            self.refresh()
            self.after(self.between(20, 150), self._pump)
            return
        by_id = {topic_id: name for name, topic_id in self.topic_ids.items()}
        for topic in response.responses:
            name = by_id.get(topic.topic_id) if self.version >= TOPIC_IDS_FROM else topic.topic
            for data in topic.partitions:
                position = self.positions.get((name, data.partition_index)) if name is not None else None
                if position is None or offsets.get((position.topic, position.index)) != position.offset:
                    continue  # of a topic that is gone, or an answer that is no longer waited for
                if self._take(position, data, host):
                    self._hold_back(position)
        self._pump()

    def _keep_session(self, host: str, response: Any) -> bool:
        if response.error_code:
            self.cluster.trace.count(f"fetch: {error_of(response.error_code).name}")
            return False
        session = self.sessions.get(host)
        if session is not None:
            if response.session_id == 0:
                self.sessions.pop(host)
            else:
                session.id, session.epoch = response.session_id, session.epoch + 1
        return True

    # -- reading -------------------------------------------------------------------------------------------------

    def _take(self, position: Position, data: Any, host: str) -> bool:
        """One partition's answer; whether it failed."""
        if data.diverging_epoch is not None and data.diverging_epoch.end_offset >= 0:
            self._diverged(position, host)
            return True
        code = error_of(data.error_code)
        if code is ErrorCode.NONE:
            position.end = data.high_watermark
            if data.records:
                self._read(position, bytes(data.records), data.aborted_transactions or [])
            return False
        self.cluster.trace.count(f"fetch: {code.name}")
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            self._out_of_range(position, host)
        return True

    def _model(self, position: Position) -> Any:
        return self.cluster.invariants.models.get((position.topic_id, position.index))

    def _lossy(self, position: Position) -> bool:
        model = self._model(position)
        return (
            model is None
            or bool(model.losses or model.loss_allowed or model.dead)
            or self.cluster.is_deleted((position.topic_id, position.index))
        )

    def _diverged(self, position: Position, host: str) -> None:
        if not self._lossy(position):
            raise InvariantViolation(
                f"P7: {host} says that {position.topic}-{position.index} diverges from what {self.name} has read below "
                f"{position.offset}"
            )
        position.offset, position.last_epoch = -1, -1

    def _out_of_range(self, position: Position, host: str) -> None:
        model = self._model(position)
        if not self._lossy(position) and position.offset >= model.log_start_somewhere:
            raise InvariantViolation(
                f"P7: {host} says that {position.offset}, up to which {self.name} has read {position.topic}-"
                f"{position.index}, is out of range; committed is all below {model.high_watermark}"
            )
        position.offset, position.last_epoch = -1, -1

    def _read(self, position: Position, records: bytes, aborted: list[Any]) -> None:
        model = self._model(position)
        lossy = self._lossy(position)
        read_any = False
        aborts = Aborts(aborted)
        for at, header in iter_batches(records):
            end = header.base_offset + header.last_offset_delta + 1
            if end <= position.offset:
                continue
            if not crc_ok(memoryview(records)[at : at + header.size]):
                raise InvariantViolation(f"P7: {self.name} reads a damaged batch at {header.base_offset}")
            batch = records[at : at + header.size]
            if position.compacted and not lossy:
                self._check_compacted(position, model, header, batch)
            elif header.base_offset > position.offset and not lossy and position.offset >= model.log_start:
                raise InvariantViolation(
                    f"int-poll-skip: {self.name} reads {position.topic}-{position.index} from {position.offset} and "
                    f"gets {header.base_offset}"
                )
            if model is not None and not model.loss_allowed and not position.compacted:
                self.cluster.history.check_read(model, header.base_offset, header.crc, self.name)
            dropped = self.committed and aborts.drop(header, batch)
            if not header.is_control and not lossy:
                self._deliver(position, model, header.base_offset, dropped)
                if position.compacted and not dropped:
                    position.view.update((key, value) for _, key, value in rows_of(batch))
            position.offset = end
            position.last_epoch = header.leader_epoch
            read_any = True
        if not read_any:
            self.cluster.trace.count("fetch: nothing whole in an answer")

    def _check_compacted(
        self, position: Position, model: PartitionModel, header: BatchHeader, batch: bytes
    ) -> None:
        """What it is given is what was committed there, and what it is not given is of no use any more."""
        if model.records is not None:
            where = f"what {self.name} reads from {position.offset}"
            check_read(model, max(position.offset, model.log_start), batch_info(batch), where)
            self.cluster.history.read += 1

    def _deliver(self, position: Position, model: PartitionModel, base: int, dropped: bool) -> None:
        """T2: who reads committed data is given that, and all of it."""
        outcome = model.transactions.outcome.get(base, True)
        if self.committed and outcome is not True and not dropped:
            found = "aborted-read" if outcome is False else "precommitted-read"
            raise InvariantViolation(f"T2: {found}: {self.name} is given the batch at {base} of {model.name}")
        if dropped and outcome is not False:
            raise InvariantViolation(
                f"T2: lost: {self.name} was told that the batch at {base} of {model.name} is aborted"
            )
        if not dropped:
            position.delivered.add(base)

    def check_all_delivered(self) -> None:
        """Of a reader that began at the start and is at the end."""
        for position in self.positions.values():
            model = self._model(position)
            if self._lossy(position):
                continue
            if position.compacted and model.records is not None:
                if self.committed:
                    model.records.check_view(position.view, model.log_start, model.stable_end, self.name)
                continue
            if model.log_start > 0:
                continue
            for batch in model.batches:
                wanted = model.transactions.outcome.get(batch.base, True) or not self.committed
                given = batch.base in position.delivered
                if given != bool(wanted) and not batch.attributes & CONTROL_FLAG:
                    raise InvariantViolation(
                        f"T1: {self.name} was {'' if given else 'not '}given the batch at {batch.base} of {model.name}"
                    )

    def lag(self) -> int:
        """Records committed and not read; positions unknown count as lag."""
        total = 0
        for topic in self.topics:
            for index in range(self.cluster.partitions_of(topic)):
                position = self.positions.get((topic, index))
                model = self._model(position) if position is not None else None
                if model is not None and model.dead:
                    continue
                if position is None or position.offset < 0:
                    total += 1
                elif model is not None:
                    total += max(0, model.high_watermark - position.offset)
        return total
