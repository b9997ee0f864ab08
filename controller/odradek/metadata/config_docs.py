"""What each configuration means, in a sentence or two. Loaded when DescribeConfigs asks for documentation.

A topic's key has its text in TOPIC_TEXT. A broker's key has it in BROKER_TEXT, or is explained with its family in
FAMILIES, the longest prefix first.
"""

from __future__ import annotations

from functools import cache

from odradek.metadata.config_defs_topic import TOPIC_SYNONYMS

TOPIC, GROUP = 2, 32

TOPIC_TEXT = """
cleanup.policy: What becomes of old data: "delete" drops segments past their retention, "compact" keeps the last value
    of each key, both together do both; empty keeps everything.
compression.gzip.level: Level used when compression.type is gzip.
compression.lz4.level: Level used when compression.type is lz4.
compression.type: Codec of the stored batches: "producer" stores what the producer sent, "uncompressed" or a codec's
    name recompresses.
compression.zstd.level: Level used when compression.type is zstd.
delete.retention.ms: How long a compacted topic keeps delete markers (tombstones), and so how long a reader from offset
    0 may take to see them.
file.delete.delay.ms: How long a removed segment file stays on disk, renamed, before it is unlinked.
flush.messages: Force an fsync after this many messages. 1 makes every acknowledged batch durable on this disk; by
    default replication, not fsync, protects data.
flush.ms: Force an fsync once the oldest unflushed message is this old.
follower.replication.throttled.replicas: Replicas ([partition]:[broker],... or *) whose followers replicate within
    follower.replication.throttled.rate.
index.interval.bytes: Bytes of log between two entries of the offset index: fewer find offsets faster and make a larger
    index.
internal.segment.bytes: Segment size below the public minimum; for tests only.
leader.replication.throttled.replicas: Replicas ([partition]:[broker],... or *) that leaders serve within
    leader.replication.throttled.rate.
local.retention.bytes: Tiered storage: bytes kept on local disk; -2 takes retention.bytes.
local.retention.ms: Tiered storage: time kept on local disk; -2 takes retention.ms.
max.compaction.lag.ms: The longest a message of a compacted topic may stay out of compaction.
max.message.bytes: The largest record batch accepted, as stored (after compression).
message.timestamp.after.max.ms: With CreateTime: how far a message's timestamp may lie ahead of the broker's clock.
message.timestamp.before.max.ms: With CreateTime: how far a message's timestamp may lie behind the broker's clock.
message.timestamp.type: Whether stored timestamps are the producer's (CreateTime) or the broker's (LogAppendTime).
min.cleanable.dirty.ratio: The share of a compacted log that must be uncleaned before the cleaner takes it up: bounds
    the space lost to duplicates.
min.compaction.lag.ms: The shortest time a message of a compacted topic stays uncompacted.
min.insync.replicas: In-sync replicas, the leader included, without which a write with acks=all is refused.
preallocate: Reserve the disk space of a segment when it is created.
remote.log.copy.disable: Tiered storage: stop copying new data to the remote tier.
remote.log.delete.on.disable: Tiered storage: delete remote data when tiering is switched off for the topic.
remote.storage.enable: Tiered storage for this topic.
retention.bytes: Size a partition may reach before its oldest segments are deleted; -1 is no limit.
retention.ms: Age after which segments are deleted; -1 is no limit.
segment.bytes: Size of a segment file. Retention and compaction work on whole, closed segments.
segment.index.bytes: Largest size of a segment's offset index.
segment.jitter.ms: Random time taken off segment.ms so that segments do not all roll at once.
segment.ms: Age after which a segment is rolled even if it is not full.
unclean.leader.election.enable: Let a replica outside the in-sync set lead when no other is left, at the price of losing
    messages.
"""

BROKER_TEXT = """
add.partitions.to.txn.retry.backoff.max.ms: The longest wait before a partition is added to a transaction again.
add.partitions.to.txn.retry.backoff.ms: The first wait before a partition is added to a transaction again.
advertised.listeners: What clients are told to connect to, where it differs from `listeners`: PLAINTEXT://host:9092,…
authorizer.class.name: The authorizer. None yet: anything but an empty value is refused.
auto.create.topics.enable: Whether asking for a topic that does not exist creates it.
auto.leader.rebalance.enable: Whether leadership goes back to preferred replicas by itself.
background.threads: Threads for background work. Taken for compatibility; a node needs none.
broker.heartbeat.interval.ms: Between heartbeats of a broker to the controller. Kafka's default is 2000.
broker.id: The older name of node.id; where both are set they must be the same.
broker.rack: Where this broker stands. Replicas are spread over racks.
broker.session.timeout.ms: A broker without a heartbeat for this long is fenced. Kafka's default is 9000.
config.providers: Names of config providers. Taken for compatibility; values are not substituted.
connection.failed.authentication.delay.ms: How long a connection that failed to authenticate is kept open.
connections.max.idle.ms: A connection idle for this long is closed; negative is never.
connections.max.reauth.ms: With SASL: a session must authenticate again after this.
controlled.shutdown.enable: Whether a stopping broker hands its partitions over first.
controller.listener.names: Names of the listeners that controllers use. A quorum of one needs none bound.
controller.quorum.append.linger.ms: How long the metadata leader gathers records before it writes them.
controller.quorum.auto.join.enable: Whether a controller adds itself to the voters.
controller.quorum.bootstrap.servers: Addresses by which the metadata quorum is found: host:port,…
controller.quorum.election.backoff.max.ms: The longest wait between elections that nobody wins.
controller.quorum.election.timeout.ms: How long a candidate for the metadata leader waits for votes.
controller.quorum.fetch.max.bytes: The most one fetch from the metadata leader returns.
controller.quorum.fetch.snapshot.max.bytes: The most one fetch of a metadata snapshot returns.
controller.quorum.fetch.timeout.ms: A voter that fetched nothing for this long stands for election. Kafka's default is
    2000.
controller.quorum.request.timeout.ms: How long a request within the quorum may take.
controller.quorum.retry.backoff.ms: The wait before a request within the quorum is sent again.
controller.quorum.voters: The metadata quorum: id@host:port,… Left out, a node with both roles is its own quorum.
controller.socket.timeout.ms: How long a connection to the controller may stay silent.
cordoned.log.dirs: Directories that get no new partitions.
default.replication.factor: Replicas of a topic created without a number.
delete.topic.enable: Whether topics can be deleted.
early.start.listeners: Listeners opened before the rest is ready. Taken for compatibility.
fetch.max.bytes: The most one fetch returns, whatever it asks for.
group.coordinator.append.linger.ms: How long the coordinator gathers records before it writes them.
group.coordinator.background.threads: Taken for compatibility; the coordinator needs no threads.
group.coordinator.cached.buffer.max.bytes: The largest write buffer that is kept.
group.coordinator.rebalance.protocols: The group protocols that are served.
group.coordinator.threads: Taken for compatibility; the coordinator runs with the requests.
group.initial.rebalance.delay.ms: How long a new group waits for more members before its first rebalance.
group.max.session.timeout.ms: The largest session timeout a member may ask for.
group.max.size: Members of one group.
group.min.session.timeout.ms: The smallest session timeout a member may ask for.
initial.broker.registration.timeout.ms: How long a broker may take to register before it gives up.
inter.broker.listener.name: The listener brokers use among themselves.
leader.imbalance.check.interval.seconds: How often leadership is compared with the preferred replicas.
follower.replication.throttled.rate: Bytes a second that throttled followers may fetch.
leader.replication.throttled.rate: Bytes a second that leaders may serve to throttled followers.
listener.security.protocol.map: Which security protocol each listener name stands for: NAME:PLAINTEXT,…
listeners: What is bound: NAME://host:port,… An empty host is every interface, port 0 any free port.
log.cleaner.backoff.ms: How long the cleaner sleeps when nothing is dirty.
log.cleaner.dedupe.buffer.size: Memory for the keys of a compaction, over all threads.
log.cleaner.enable: Whether topics are compacted.
log.cleaner.io.buffer.load.factor: How full the key table of a compaction may get.
log.cleaner.io.buffer.size: Memory for the reads and writes of a compaction.
log.cleaner.io.max.bytes.per.second: How much compaction may read and write.
log.cleaner.threads: Workers that compact.
log.dir: The data directory, where log.dirs is not set.
log.dir.failure.timeout.ms: A broker that cannot tell the controller of a failed directory for this long stops.
log.dirs: The data directories.
log.flush.offset.checkpoint.interval.ms: How often the offsets known to be on disk are written down.
log.flush.scheduler.interval.ms: How often logs are looked at for an fsync that is due.
log.flush.start.offset.checkpoint.interval.ms: How often the first offsets of logs are written down.
log.retention.check.interval.ms: How often segments past their retention are looked for.
log.retention.hours: retention.ms of topics that do not say otherwise, in hours; log.retention.minutes and
    log.retention.ms come first.
log.retention.minutes: retention.ms of topics that do not say otherwise, in minutes; log.retention.ms comes first.
log.roll.hours: segment.ms of topics that do not say otherwise, in hours; log.roll.ms comes first.
log.roll.jitter.hours: segment.jitter.ms of topics that do not say otherwise, in hours; log.roll.jitter.ms comes first.
max.connection.creation.rate: New connections a second.
max.connections: Connections at once.
max.connections.per.ip: Connections at once from one address.
max.connections.per.ip.overrides: Other limits for single addresses: host:limit,…
max.incremental.fetch.session.cache.slots: Incremental fetch sessions that are kept.
max.request.partition.size.limit: The most partitions one request describes.
metadata.log.dir: Where the metadata log is; the first of log.dirs if not set.
metadata.log.max.record.bytes.between.snapshots: Bytes of metadata records after which a snapshot is made.
metadata.log.max.snapshot.interval.ms: Time after which a snapshot of the metadata is made; 0 is never.
metadata.log.segment.bytes: Segment size of the metadata log.
metadata.log.segment.ms: Age after which a segment of the metadata log is rolled.
metadata.max.idle.interval.ms: How often the metadata leader writes a record when nothing else happens; 0 is never.
metadata.max.retention.bytes: Metadata log and snapshots above this size are deleted, the oldest first.
metadata.max.retention.ms: Metadata log and snapshots older than this are deleted.
node.id: The number of this node, unique in the cluster.
num.io.threads: Taken for compatibility; a node serves requests on one core.
num.network.threads: Taken for compatibility; a node serves requests on one core.
num.partitions: Partitions of a topic created without a number.
num.recovery.threads.per.data.dir: Logs of one directory recovered at the same time.
num.replica.alter.log.dirs.threads: Threads that move replicas between directories.
num.replica.fetchers: Streams from one leader. Taken for compatibility; one carries all partitions.
odradek.connection.max.unsent.bytes: Bytes of responses a client has not taken yet, above which it gets no further
    ones.
odradek.internal.secret: What the nodes of a cluster prove to each other that they know, 16 characters or more; without
    it, whoever reaches the internal port and knows the cluster id may speak as a node. The same on every node.
odradek.internal.secret.file: A file with it, in place of odradek.internal.secret.
odradek.log.format: How log lines look: text, json, or auto (text on a terminal, json elsewhere).
odradek.log.level: The least level that is logged: debug, info, warning, error.
odradek.metrics.host: Where /metrics and /health are bound.
odradek.replication.port: Where a broker-only node serves other nodes; 0: its first listener's port plus one.
odradek.metrics.port: Port of /metrics and /health; 0 takes any free one, -1 serves none.
offset.metadata.max.bytes: The longest metadata of a committed offset.
offsets.commit.timeout.ms: How long a commit may take to reach all replicas.
offsets.load.buffer.size: Bytes read at once when a coordinator loads.
offsets.retention.check.interval.ms: How often expired offsets are looked for.
offsets.retention.minutes: How long the offsets of an empty group are kept.
offsets.topic.compression.codec: Codec of __consumer_offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
offsets.topic.num.partitions: Partitions of __consumer_offsets; not to be changed once it exists.
offsets.topic.replication.factor: Replicas of __consumer_offsets; it is not created before there are as many brokers.
offsets.topic.segment.bytes: Segment size of __consumer_offsets.
principal.builder.class: Who a connection is. Java classes cannot be loaded.
process.roles: What this process is: broker, controller or both.
producer.id.expiration.ms: A producer id idle for this long is forgotten.
queued.max.request.bytes: Bytes of requests being received or handled, above which nothing is read. Not positive is no
    limit, as is Kafka's default.
queued.max.requests: Requests waiting for their answer, above which nothing is read.
replica.alter.log.dirs.io.max.bytes.per.second: Bytes a second moved between directories.
replica.fetch.backoff.ms: The wait after a fetch from a leader that failed.
replica.fetch.max.bytes: The most fetched for one partition at a time.
replica.fetch.min.bytes: The least a fetch from a leader waits for.
replica.fetch.response.max.bytes: The most one fetch from a leader returns.
replica.fetch.wait.max.ms: How long a fetch from a leader waits for data.
replica.high.watermark.checkpoint.interval.ms: How often high watermarks are written down.
replica.lag.time.max.ms: A follower that has not caught up for this long leaves the in-sync set. Kafka's default is
    30000.
replica.selector.class: Which replica a consumer reads from: org.apache.kafka.common.replica.RackAwareReplicaSelector
    sends it to one in its own rack, otherwise it is the leader. No other class can be loaded.
replica.socket.receive.buffer.bytes: Receive buffer of connections between brokers.
replica.socket.timeout.ms: How long a connection between brokers may stay silent.
request.timeout.ms: How long a node waits for another's answer.
security.inter.broker.protocol: The security protocol among brokers, where inter.broker.listener.name is not set.
security.providers: Java security providers. Taken for compatibility.
socket.connection.setup.timeout.max.ms: The longest wait for a connection.
socket.connection.setup.timeout.ms: The first wait for a connection.
socket.listen.backlog.size: Connections waiting to be accepted.
socket.receive.buffer.bytes: SO_RCVBUF of clients' connections; -1, or not set at all, leaves the system's.
socket.request.max.bytes: The largest request; a larger one closes its connection.
socket.send.buffer.bytes: SO_SNDBUF of clients' connections; -1 leaves the system's.
transaction.abort.timed.out.transaction.cleanup.interval.ms: How often transactions past their timeout are looked for.
transaction.max.timeout.ms: The largest transaction timeout a producer may ask for.
transaction.partition.verification.enable: Whether a write is checked to belong to an open transaction.
transaction.remove.expired.transaction.cleanup.interval.ms: How often expired transactional ids are looked for.
transaction.two.phase.commit.enable: Whether transactions may take part in a two-phase commit.
transactional.id.expiration.ms: A transactional id idle for this long is forgotten.
unclean.leader.election.enable: Let a replica outside the in-sync set lead when no other is left, at the price of losing
    messages; for topics that do not say otherwise.
"""

FAMILIES = """
alter.config.policy.: A policy written in Java, which cannot be loaded.
alter.log.dirs.: Sampling of the throttle for moves between directories.
client.quota.callback.: Quotas decided in Java, which cannot be loaded.
controller.quota.: Sampling of the controller's quotas.
create.topic.policy.: A policy written in Java, which cannot be loaded.
delegation.token.: Delegation tokens. Not there yet.
delete.records.purgatory.: Taken for compatibility: waiting requests are dropped the moment they are answered.
fetch.purgatory.: Taken for compatibility: waiting requests are dropped the moment they are answered.
follower.fetch.last.tiered.: Tiered storage. Not there yet.
group.consumer.: Consumer groups of the newer protocol (KIP-848).
group.share.: Share groups (KIP-932). Not there yet.
group.streams.: Streams groups (KIP-1071). Not there yet.
kafka.metrics.: Metrics reporters for the JVM. Taken for compatibility; see odradek.metrics.port.
metric.: Metrics reporters for the JVM. Taken for compatibility; see odradek.metrics.port.
metrics.: Sampling of metrics. Taken for compatibility; counters are cumulative here.
producer.purgatory.: Taken for compatibility: waiting requests are dropped the moment they are answered.
quota.: Sampling of client quotas.
remote.: Tiered storage. Not there yet.
replication.quota.: Sampling of the replication throttle.
sasl.: SASL. Not there yet: a listener that asks for it is refused.
share.: Share groups (KIP-932). Not there yet.
ssl.: TLS. Not there yet: a listener that asks for it is refused.
telemetry.: Metrics that clients push (KIP-714). Not there yet.
transaction.state.log.: The __transaction_state topic: its size, replicas and segments.
"""


def documentation(resource_type: int, name: str) -> str | None:
    """The text for a key, None if nobody knows it."""
    if resource_type == TOPIC:
        return _topics().get(name)
    if resource_type == GROUP:
        name = f"group.{name}"
    if name.startswith("listener.name."):
        name = name.split(".", 3)[-1]
    found = _brokers().get(name)
    if found is None:
        families = [prefix for prefix in _families() if name.startswith(prefix)]
        found = _families()[max(families, key=len)] if families else None
    return found


@cache
def _topics() -> dict[str, str]:
    return _read(TOPIC_TEXT)


@cache
def _brokers() -> dict[str, str]:
    texts = _read(BROKER_TEXT)
    for topic_name, synonyms in TOPIC_SYNONYMS.items():
        text = f"{topic_name} of topics that do not say otherwise. {_topics()[topic_name]}"
        texts.setdefault(synonyms[0][0], text)
    return texts


@cache
def _families() -> dict[str, str]:
    return _read(FAMILIES)


def _read(text: str) -> dict[str, str]:
    """`key: text` a line, continued on indented ones."""
    found: dict[str, str] = {}
    key = ""
    for line in text.strip().splitlines():
        if line.startswith(" "):
            found[key] += f" {line.strip()}"
        else:
            key, _, rest = line.partition(": ")
            found[key] = rest
    return found
