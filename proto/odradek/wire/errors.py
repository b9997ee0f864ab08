"""Kafka's error codes, and the two exceptions of the wire layer.

One enum owns number, message and retriability, with the numbers of Apache Kafka 4.3
(`org.apache.kafka.common.protocol.Errors`). `retriable` is what Kafka's own clients go by: whether the same
request may succeed when it is sent again without anybody changing anything.

Two exceptions, two culprits: `KafkaError` is an answer that belongs into a response; `MalformedMessage` means
that the bytes could not be read at all, so that there is nothing to answer to.
"""

from enum import IntEnum

_RETRY = True


class ErrorCode(IntEnum):
    """An error code of Kafka's protocol: an int16 on the wire, 0 for success."""

    message: str
    retriable: bool

    # `message` has a default only for type checkers, which take a lookup, `ErrorCode(3)`, for a call of this.
    def __new__(cls, code: int, message: str = "", retriable: bool = False) -> "ErrorCode":
        member = int.__new__(cls, code)
        member._value_ = code
        member.message = message
        member.retriable = retriable
        return member

    @classmethod
    def told(cls, code: int) -> "ErrorCode":
        """What another node says, which may be of a later version: UNKNOWN_SERVER_ERROR for a code we do not know."""
        try:
            return cls(code)
        except ValueError:
            return cls.UNKNOWN_SERVER_ERROR

    UNKNOWN_SERVER_ERROR = -1, "Something the server did not expect went wrong while it handled the request."
    NONE = 0, "No error."
    OFFSET_OUT_OF_RANGE = 1, "The log does not hold the requested offset."
    CORRUPT_MESSAGE = 2, "The record data is damaged: wrong checksum, wrong size or a missing key.", _RETRY
    UNKNOWN_TOPIC_OR_PARTITION = 3, "There is no such topic or partition on this server.", _RETRY
    INVALID_FETCH_SIZE = 4, "The fetch size asked for is not valid."
    LEADER_NOT_AVAILABLE = 5, "The partition has no leader at present; one is being elected.", _RETRY
    NOT_LEADER_OR_FOLLOWER = (
        6,
        "This broker is not the leader of the partition, or not even one of its replicas.",
        _RETRY,
    )
    REQUEST_TIMED_OUT = 7, "The request was not done before its timeout.", _RETRY
    BROKER_NOT_AVAILABLE = 8, "The broker cannot be reached."
    REPLICA_NOT_AVAILABLE = 9, "The replica of the partition is not available here.", _RETRY
    MESSAGE_TOO_LARGE = 10, "The message is larger than the server accepts."
    STALE_CONTROLLER_EPOCH = 11, "Another broker has become the controller."
    OFFSET_METADATA_TOO_LARGE = 12, "The metadata string of the committed offset is too long."
    NETWORK_EXCEPTION = 13, "The connection ended before the response came.", _RETRY
    COORDINATOR_LOAD_IN_PROGRESS = 14, "The coordinator is still loading its state.", _RETRY
    COORDINATOR_NOT_AVAILABLE = 15, "The coordinator is not available.", _RETRY
    NOT_COORDINATOR = 16, "This broker is not the coordinator asked for.", _RETRY
    INVALID_TOPIC_EXCEPTION = 17, "The topic is not one that this request may be used on."
    RECORD_LIST_TOO_LARGE = 18, "The record batch is larger than a log segment may be."
    NOT_ENOUGH_REPLICAS = (
        19,
        "Fewer replicas are in sync than the topic demands; nothing was written.",
        _RETRY,
    )
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = (
        20,
        "The records were written, but to fewer in-sync replicas than the topic demands.",
        _RETRY,
    )
    INVALID_REQUIRED_ACKS = 21, "The acks of a produce request must be -1, 0 or 1."
    ILLEGAL_GENERATION = 22, "The generation is not the current one of the group."
    INCONSISTENT_GROUP_PROTOCOL = (
        23,
        "The member shares no protocol with the other members of the group, or named no protocol at all.",
    )
    INVALID_GROUP_ID = 24, "The group id is not valid."
    UNKNOWN_MEMBER_ID = 25, "The coordinator does not know this member."
    INVALID_SESSION_TIMEOUT = (
        26,
        "The session timeout is outside the broker's bounds "
        "(group.min.session.timeout.ms to group.max.session.timeout.ms).",
    )
    REBALANCE_IN_PROGRESS = 27, "The group is rebalancing; the member has to join again."
    INVALID_COMMIT_OFFSET_SIZE = 28, "The offset data to commit has a size that is not valid."
    TOPIC_AUTHORIZATION_FAILED = 29, "The principal may not do this to the topic."
    GROUP_AUTHORIZATION_FAILED = 30, "The principal may not do this to the group."
    CLUSTER_AUTHORIZATION_FAILED = 31, "The principal may not do this to the cluster."
    INVALID_TIMESTAMP = 32, "The timestamp of the message is too far from the server's time."
    UNSUPPORTED_SASL_MECHANISM = 33, "The broker does not offer this SASL mechanism."
    ILLEGAL_SASL_STATE = 34, "The request does not fit the state of the SASL exchange."
    UNSUPPORTED_VERSION = 35, "This version of the API is not supported."
    TOPIC_ALREADY_EXISTS = 36, "There is a topic of this name already."
    INVALID_PARTITIONS = 37, "The number of partitions must be at least 1."
    INVALID_REPLICATION_FACTOR = (
        38,
        "The replication factor must be between 1 and the number of live brokers.",
    )
    INVALID_REPLICA_ASSIGNMENT = 39, "The assignment of replicas to brokers is not valid."
    INVALID_CONFIG = 40, "The configuration is not valid."
    NOT_CONTROLLER = 41, "This server is not the active controller.", _RETRY
    INVALID_REQUEST = (
        42,
        "The request makes no sense: a faulty client, or one meant for another kind of broker.",
    )
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43, "The message format does not allow this request."
    POLICY_VIOLATION = 44, "A policy of this cluster forbids these parameters."
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45, "The sequence number does not follow the producer's last one."
    DUPLICATE_SEQUENCE_NUMBER = 46, "The sequence number has been used already."
    INVALID_PRODUCER_EPOCH = 47, "The producer's epoch is an old one."
    INVALID_TXN_STATE = 48, "The transaction is not in a state that allows this."
    INVALID_PRODUCER_ID_MAPPING = 49, "The producer id is not the one assigned to this transactional id."
    INVALID_TRANSACTION_TIMEOUT = (
        50,
        "The transaction timeout is longer than the broker allows (transaction.max.timeout.ms).",
    )
    CONCURRENT_TRANSACTIONS = 51, "Another operation on the same transaction is still under way.", _RETRY
    TRANSACTION_COORDINATOR_FENCED = (
        52,
        "The sender of the transaction marker is no longer the coordinator of that producer.",
    )
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53, "The principal may not use this transactional id."
    SECURITY_DISABLED = 54, "The security features that this needs are switched off."
    OPERATION_NOT_ATTEMPTED = (
        55,
        "The operation was not tried, because another one of the same request failed.",
    )
    KAFKA_STORAGE_ERROR = 56, "The disk failed while the log was read or written.", _RETRY
    LOG_DIR_NOT_FOUND = 57, "The log directory is none of those in the broker's configuration."
    SASL_AUTHENTICATION_FAILED = 58, "SASL authentication failed."
    UNKNOWN_PRODUCER_ID = (
        59,
        "Nothing is known of this producer id, possibly because all its records have passed their retention.",
    )
    REASSIGNMENT_IN_PROGRESS = 60, "The partition is being reassigned."
    DELEGATION_TOKEN_AUTH_DISABLED = 61, "Delegation tokens are not enabled."
    DELEGATION_TOKEN_NOT_FOUND = 62, "The server does not know this delegation token."
    DELEGATION_TOKEN_OWNER_MISMATCH = 63, "The principal neither owns the delegation token nor may renew it."
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = (
        64,
        "Delegation tokens cannot be managed over an unauthenticated channel, "
        "or one authenticated by such a token.",
    )
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65, "The principal may not do this to the delegation token."
    DELEGATION_TOKEN_EXPIRED = 66, "The delegation token has expired."
    INVALID_PRINCIPAL_TYPE = 67, "This type of principal is not supported."
    NON_EMPTY_GROUP = 68, "The group still has members."
    GROUP_ID_NOT_FOUND = 69, "There is no group of this id."
    FETCH_SESSION_ID_NOT_FOUND = 70, "There is no fetch session of this id.", _RETRY
    INVALID_FETCH_SESSION_EPOCH = 71, "The epoch of the fetch session is not the expected one.", _RETRY
    LISTENER_NOT_FOUND = 72, "The leader has no listener of the name that this request came in by.", _RETRY
    TOPIC_DELETION_DISABLED = 73, "Deleting topics is switched off."
    FENCED_LEADER_EPOCH = 74, "The leader epoch of the request is older than the broker's.", _RETRY
    UNKNOWN_LEADER_EPOCH = 75, "The leader epoch of the request is newer than the broker's.", _RETRY
    UNSUPPORTED_COMPRESSION_TYPE = 76, "The client cannot read the compression type of this partition."
    STALE_BROKER_EPOCH = 77, "The broker epoch is not the current one."
    OFFSET_NOT_AVAILABLE = 78, "The newly elected leader does not know its high watermark yet.", _RETRY
    MEMBER_ID_REQUIRED = 79, "The member has to join again with the member id that it was given."
    PREFERRED_LEADER_NOT_AVAILABLE = 80, "The preferred leader was not available.", _RETRY
    GROUP_MAX_SIZE_REACHED = 81, "The group is full."
    FENCED_INSTANCE_ID = 82, "Another member has registered with the same group.instance.id."
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83, "Eligible topic partition leaders are not available.", _RETRY
    ELECTION_NOT_NEEDED = 84, "The partition has the leader already that an election would choose.", _RETRY
    NO_REASSIGNMENT_IN_PROGRESS = 85, "The partition is not being reassigned."
    GROUP_SUBSCRIBED_TO_TOPIC = 86, "The group is subscribed to the topic, so its offsets cannot be deleted."
    INVALID_RECORD = 87, "The record did not pass the broker's checks."
    UNSTABLE_OFFSET_COMMIT = 88, "A transaction that commits these offsets has not ended yet.", _RETRY
    THROTTLING_QUOTA_EXCEEDED = 89, "A quota has been used up.", _RETRY
    PRODUCER_FENCED = 90, "A newer producer uses the same transactional id."
    RESOURCE_NOT_FOUND = 91, "The request names a resource that does not exist."
    DUPLICATE_RESOURCE = 92, "The request names the same resource twice."
    UNACCEPTABLE_CREDENTIAL = 93, "The credential does not meet the requirements."
    INCONSISTENT_VOTER_SET = 94, "Sender or receiver of the request is none of the expected voters."
    INVALID_UPDATE_VERSION = 95, "The version of the update is not valid."
    FEATURE_UPDATE_FAILED = 96, "The features could not be updated because of an error in the server."
    PRINCIPAL_DESERIALIZATION_FAILURE = 97, "The principal of a forwarded request could not be read."
    SNAPSHOT_NOT_FOUND = 98, "There is no such snapshot."
    POSITION_OUT_OF_RANGE = 99, "The position lies outside the snapshot."
    UNKNOWN_TOPIC_ID = 100, "There is no topic of this id on this server.", _RETRY
    DUPLICATE_BROKER_REGISTRATION = 101, "Another broker uses this id."
    BROKER_ID_NOT_REGISTERED = 102, "No broker of this id is registered."
    INCONSISTENT_TOPIC_ID = 103, "The topic id of the request is not that of the log.", _RETRY
    INCONSISTENT_CLUSTER_ID = 104, "The cluster id of the request is not that of this cluster."
    TRANSACTIONAL_ID_NOT_FOUND = 105, "There is no such transactional id."
    FETCH_SESSION_TOPIC_ID_ERROR = 106, "The fetch session mixes requests with and without topic ids.", _RETRY
    INELIGIBLE_REPLICA = 107, "A replica of the new ISR may not be in one."
    NEW_LEADER_ELECTED = 108, "The partition was altered, and another leader elected."
    OFFSET_MOVED_TO_TIERED_STORAGE = 109, "The offset has been moved to tiered storage."
    FENCED_MEMBER_EPOCH = (
        110,
        "The coordinator fenced the member epoch: give up all partitions and join again.",
    )
    UNRELEASED_INSTANCE_ID = 111, "Another member still uses the instance id; it has to leave first."
    UNSUPPORTED_ASSIGNOR = 112, "The group does not support this assignor in this version."
    STALE_MEMBER_EPOCH = 113, "The member epoch is old; a heartbeat brings the current one."
    MISMATCHED_ENDPOINT_TYPE = 114, "The request went to the wrong kind of endpoint (broker or controller)."
    UNSUPPORTED_ENDPOINT_TYPE = 115, "This kind of endpoint is not supported."
    UNKNOWN_CONTROLLER_ID = 116, "There is no controller of this id."
    UNKNOWN_SUBSCRIPTION_ID = 117, "The telemetry subscription id is unknown or out of date."
    TELEMETRY_TOO_LARGE = 118, "The telemetry is larger than the broker accepts."
    INVALID_REGISTRATION = 119, "The controller refuses the registration of the broker."
    TRANSACTION_ABORTABLE = (
        120,
        "The transaction has failed and can only be aborted; the producer stays usable.",
    )
    INVALID_RECORD_STATE = 121, "The record is not in a state in which it can be acknowledged."
    SHARE_SESSION_NOT_FOUND = 122, "There is no such share session.", _RETRY
    INVALID_SHARE_SESSION_EPOCH = 123, "The epoch of the share session is not the expected one.", _RETRY
    FENCED_STATE_EPOCH = 124, "The state epoch is not the share group's."
    INVALID_VOTER_KEY = 125, "The voter key is not that of the replica which received it."
    DUPLICATE_VOTER = 126, "The voter is in the voter set already."
    VOTER_NOT_FOUND = 127, "The voter is not in the voter set."
    INVALID_REGULAR_EXPRESSION = 128, "The regular expression is not valid."
    REBOOTSTRAP_REQUIRED = (
        129,
        "The client's metadata is out of date; it has to start again from its bootstrap servers.",
    )
    STREAMS_INVALID_TOPOLOGY = 130, "The topology is not valid."
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131, "The topology epoch is not valid."
    STREAMS_TOPOLOGY_FENCED = 132, "The topology epoch is out of date."
    SHARE_SESSION_LIMIT_REACHED = 133, "There are as many share sessions as allowed.", _RETRY


class KafkaError(Exception):
    """A refusal that Kafka's protocol has a code for.

    `message` is the detail for this one case (the `error_message` of responses that have one), None when
    there is nothing to say beyond the code's own message.
    """

    def __init__(self, code: ErrorCode, message: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def retriable(self) -> bool:
        """True when the same request may succeed later without a change."""
        return self.code.retriable

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message or self.code.message}"


class MalformedMessage(ValueError):  # noqa: N818 - the word of the protocol, not of the language
    """The bytes of a peer do not decode: too short, a negative size, a bound exceeded, a bad value."""
