"""The common part of simulated clients: connections that speak Kafka's bytes, metadata, finding leaders.

They behave as stock clients do: any broker they know is good for metadata; a request that is not answered in time costs
its connection; what a lost connection leaves open is unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from struct import unpack_from
from typing import TYPE_CHECKING, Any, NamedTuple

from odradek.simulation.scheduler import MS
from odradek.wire.apis import response_class
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import decode_response_header, encode_request
from odradek.wire.messages.api_versions import ApiVersionsRequest
from odradek.wire.messages.metadata import MetadataRequest, MetadataRequestTopic

if TYPE_CHECKING:
    from odradek.simulation.cluster import Cluster
    from odradek.simulation.network import Stream

ERRORS = {int(code): code for code in ErrorCode}
REQUEST_TIMEOUT_US = 3_000 * MS
REFRESH_PAUSE_US = 50 * MS
"""Least time between two requests for metadata (retry.backoff.ms)."""
RECONNECT_US = (20 * MS, 400 * MS)
Answered = Callable[[Any], None]
"""Takes the decoded response, or None if there will be none."""


def error_of(code: int) -> ErrorCode:
    """KeyError for a number that Kafka does not have."""
    return ERRORS[code]


class _Asked(NamedTuple):
    correlation_id: int
    api_key: int
    version: int
    done: Answered


class Link:
    """One connection to one broker. Implements `network.Receiver`."""

    def __init__(self, client: Client, host: str) -> None:
        self.client = client
        self.host = host
        self._asked: deque[_Asked] = deque()
        self._data = bytearray()
        self._next_id = 0
        self.is_open = True
        network = client.cluster.network
        self._stream: Stream = network.connect(client.name, host, "kafka", self)

    def ask(self, request: Any, version: int, done: Answered | None, timeout_us: int) -> None:
        """`done` with the response or None; no `done`: no response is expected (acks=0)."""
        self._next_id += 1
        number = self._next_id
        frame = encode_request(request.API_KEY, version, number, self.client.name, request.encode(version))
        if done is not None:
            self._asked.append(_Asked(number, request.API_KEY, version, done))
            self.client.after(timeout_us, lambda: self._check_timeout(number))
        self._stream.send(0, frame)

    def _check_timeout(self, number: int) -> None:
        if self.is_open and self._asked and self._asked[0].correlation_id <= number:
            self.client.cluster.trace.count("client: request timed out")
            if self.client.abandons:
                self._stream.reset("reset by the peer", skip=0)
            else:
                self._stream.close(0)
            self._end()

    def received(self, item: object) -> None:
        assert isinstance(item, bytes)
        data = self._data
        data += item
        while len(data) >= 4 and self.is_open:
            (size,) = unpack_from(">i", data)
            if len(data) < 4 + size:
                return
            frame = bytes(data[4 : 4 + size])
            del data[: 4 + size]
            self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        asked = self._asked.popleft()
        found, pos = decode_response_header(frame, asked.api_key, asked.version)
        assert found == asked.correlation_id, f"answer to {found}, expected {asked.correlation_id}"
        response, end = response_class(asked.api_key).read(frame, pos, asked.version)
        assert end == len(frame), f"{len(frame) - end} bytes behind the response"
        asked.done(response)

    def closed(self, reason: str) -> None:
        if self.is_open:
            self._end()

    def close(self) -> None:
        if self.is_open:
            self._stream.close(0)
            self._end()

    def _end(self) -> None:
        self.is_open = False
        self.client.link_lost(self)
        asked, self._asked = self._asked, deque()
        for each in asked:
            each.done(None)


class Client:
    """A client application with a name, which is its host too."""

    request_timeout_us = REQUEST_TIMEOUT_US
    abandons = False
    """Whether what is still under way when a request times out is lost with its connection, instead of late."""

    def __init__(self, cluster: Cluster, name: str, rng: Random) -> None:
        self.cluster = cluster
        self.name = name
        self.rng = rng
        self.links: dict[str, Link] = {}
        self.leaders: dict[tuple[str, int], tuple[str, int]] = {}
        """(topic, partition) → (host of the leader, leader epoch)."""
        self.topic_ids: dict[str, bytes] = {}
        self.hosts: dict[int, str] = {}
        self._not_before_us: dict[str, int] = {}
        self._refreshing = False
        self._refresh_again = False
        self._refreshed_us = -REFRESH_PAUSE_US
        self.stopped = False

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        return self.cluster.scheduler.now_us

    def after(self, delay_us: int, action: Callable[[], None]) -> None:
        self.cluster.scheduler.after(delay_us, action)

    def between(self, low_ms: int, high_ms: int) -> int:
        """A random time, in microseconds."""
        return self.rng.randrange(low_ms * MS, high_ms * MS)

    # -- connections ---------------------------------------------------------------------------------------------

    def link(self, host: str) -> Link | None:
        """The connection to a broker, dialled if need be; None while it backs off."""
        link = self.links.get(host)
        if link is None and self._not_before_us.get(host, 0) <= self.now_us:
            link = self.links[host] = Link(self, host)
            if self.rng.random() < 0.2:
                request = ApiVersionsRequest(client_software_name="sim", client_software_version="1")
                link.ask(
                    request,
                    self.rng.choice((0, 3, 4)),
                    lambda _response: None,
                    self.request_timeout_us,
                )
        return link

    def link_lost(self, link: Link) -> None:
        if self.links.get(link.host) is link:
            del self.links[link.host]
        self._not_before_us[link.host] = self.now_us + self.rng.randrange(*RECONNECT_US)

    def ask(self, host: str, request: Any, version: int, done: Answered) -> None:
        """One request to one broker; `done(None)` if it cannot be reached."""
        link = self.link(host)
        if link is None:
            self.after(self.between(20, 100), lambda: done(None))
        else:
            link.ask(request, version, done, self.request_timeout_us)

    def any_host(self) -> str:
        """A broker to ask: one that is known to live, or one of the bootstrap servers."""
        known = list(self.hosts.values())
        bootstrap = self.cluster.broker_hosts
        usable = [host for host in (known or bootstrap) if self._not_before_us.get(host, 0) <= self.now_us]
        return self.rng.choice(usable or bootstrap)

    # -- metadata ------------------------------------------------------------------------------------------------

    @property
    def topics(self) -> list[str]:
        """The topics this client works with."""
        return self.cluster.topics

    def refresh(self) -> None:
        """Ask for metadata anew, soon; once at a time."""
        if self._refreshing:
            self._refresh_again = True
            return
        self._refreshing = True
        wait_us = self._refreshed_us + REFRESH_PAUSE_US - self.now_us
        if wait_us > 0:
            self.after(wait_us, self._ask_metadata)
        else:
            self._ask_metadata()

    def _ask_metadata(self) -> None:
        self._refreshed_us = self.now_us
        topics = [MetadataRequestTopic(name=name) for name in self.topics]
        request = MetadataRequest(topics=topics, allow_auto_topic_creation=False)
        self.ask(self.any_host(), request, self.rng.choice((10, 12, 13)), self._refreshed)

    def _refreshed(self, response: Any) -> None:
        missing = response is None
        if response is not None:
            self.hosts = {broker.node_id: broker.host for broker in response.brokers}
            for topic in response.topics:
                missing |= topic.error_code != 0
                if topic.error_code == 0:
                    missing |= self._take_topic(topic)
        self._refreshing = False
        again, self._refresh_again = self._refresh_again, False
        if (missing or again) and not self.stopped:
            self.after(self.between(20, 150), self.refresh)
        self.on_metadata()

    def _take_topic(self, topic: Any) -> bool:
        """Whether something is missing."""
        missing = False
        if any(topic.topic_id) and self.topic_ids.get(topic.name) != topic.topic_id:
            self.topic_ids[topic.name] = topic.topic_id
            self.leaders = {key: known for key, known in self.leaders.items() if key[0] != topic.name}
        for partition in topic.partitions:
            key = topic.name, partition.partition_index
            host = self.hosts.get(partition.leader_id)
            known = self.leaders.get(key)
            if host is None or partition.error_code:
                missing = True
            elif known is None or partition.leader_epoch >= known[1]:
                self.leaders[key] = host, partition.leader_epoch
        return missing

    def on_metadata(self) -> None:
        """Metadata has arrived, or not; to be overridden."""
