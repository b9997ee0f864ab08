"""`kafka-transactions`: transactional ids, the producers of a partition, and transactions that hang (KIP-664)."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, add_bootstrap, program_name, run_tool
from odradek.cli.tables import tabbed_table

if TYPE_CHECKING:
    from odradek.cli.transaction_admin import TransactionAdmin

LISTED = ("TransactionalId", "Coordinator", "ProducerId", "TransactionState")
DESCRIBED = (
    "CoordinatorId",
    "TransactionalId",
    "ProducerId",
    "ProducerEpoch",
    "TransactionState",
    "TransactionTimeoutMs",
    "CurrentTransactionStartTimeMs",
    "TransactionDurationMs",
    "TopicPartitions",
)
PRODUCERS = (
    "ProducerId",
    "ProducerEpoch",
    "LatestCoordinatorEpoch",
    "LastSequence",
    "LastTimestamp",
    "CurrentTransactionStartOffset",
)
HANGING = (
    "Topic",
    "Partition",
    "ProducerId",
    "ProducerEpoch",
    "CoordinatorEpoch",
    "StartOffset",
    "LastTimestamp",
    "Duration(min)",
)
MINUTE_MS = 60_000


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    if not options.bootstrap_server:
        parser.error("argument --bootstrap-server is required")
    check(options)
    from odradek.cli.admin import connect
    from odradek.cli.transaction_admin import TransactionAdmin

    commands: dict[str, Callable[[TransactionAdmin, Namespace], None]] = {
        "list": list_transactions,
        "describe": describe,
        "describe-producers": describe_producers,
        "abort": abort,
        "find-hanging": find_hanging,
        "forceTerminateTransaction": terminate,
    }
    with connect(options.bootstrap_server, options.command_config, "TransactionsCommand") as admin:
        commands[options.command](TransactionAdmin(admin), options)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek transactions"),
        description="This tool is used to analyze the transactional state of producers in the cluster. It can be used "
        "to detect and recover from hanging transactions.",
    )
    add_bootstrap(parser)
    parser.add_version()
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list transactions")
    listing.add_argument(
        "--duration-filter",
        type=int,
        metavar="MS",
        help="Duration (in millis) to filter by: if < 0, all transactions will be returned; otherwise, only "
        "transactions running longer than this duration will be returned",
    )
    listing.add_argument(
        "--transactional-id-pattern",
        metavar="REGEX",
        help="Transactional id regular expression pattern to filter by",
    )
    described = commands.add_parser("describe", help="describe the state of an active transactional-id")
    described.add_argument("--transactional-id", required=True, help="transactional id")
    producers = commands.add_parser(
        "describe-producers", help="describe the states of active producers for a topic partition"
    )
    producers.add_argument(
        "--broker-id",
        type=int,
        help="optional broker id to describe the producer state on a specific replica",
    )
    aborted = commands.add_parser(
        "abort", help="abort a hanging transaction (requires administrative privileges)"
    )
    for command in (producers, aborted):
        command.add_argument("--topic", required=True, help="topic name")
        command.add_argument("--partition", type=int, required=True, help="partition number")
    aborted.add_argument("--start-offset", type=int, help="start offset of the transaction to abort")
    aborted.add_argument("--producer-id", type=int, help="producer id")
    aborted.add_argument("--producer-epoch", type=int, help="producer epoch")
    aborted.add_argument("--coordinator-epoch", type=int, help="coordinator epoch")
    hanging = commands.add_parser("find-hanging", help="find hanging transactions")
    hanging.add_argument("--broker-id", type=int, help="broker id to search for hanging transactions")
    hanging.add_argument(
        "--max-transaction-timeout",
        type=int,
        default=15,
        metavar="MINUTES",
        help="maximum transaction timeout in minutes to limit the scope of the search (15 minutes by default)",
    )
    hanging.add_argument(
        "--topic", help="topic name to limit search to (required if --partition is specified)"
    )
    hanging.add_argument("--partition", type=int, help="partition number")
    forced = commands.add_parser(
        "forceTerminateTransaction",
        help="Force abort an ongoing transaction on transactionalId (requires administrative privileges)",
    )
    forced.add_argument("--transactionalId", "--transactional-id", dest="transactional_id", required=True)
    return parser


def check(options: Namespace) -> None:
    """What Kafka asks of the options of a command, in its order."""
    if options.command == "find-hanging" and options.topic is None:
        if options.broker_id is None:
            raise ToolError(
                "The `find-hanging` command requires either --topic or --broker-id to limit the scope of the search"
            )
        if options.partition is not None:
            raise ToolError("The --partition argument requires --topic to be provided")
    if options.command == "abort" and options.start_offset is None:
        if options.producer_id is None:
            raise ToolError(
                "The transaction to abort must be identified either with --start-offset (for brokers on 3.0 or above) "
                "or with --producer-id, --producer-epoch, and --coordinator-epoch (for older brokers)"
            )
        for name in ("producer-epoch", "coordinator-epoch"):
            if getattr(options, name.replace("-", "_")) is None:
                raise ToolError(f"Missing required argument --{name}")


def list_transactions(admin: TransactionAdmin, options: Namespace) -> None:
    """Of every broker."""
    try:
        listed = admin.listed(duration_ms=options.duration_filter, pattern=options.transactional_id_pattern)
    except ToolError as error:
        raise ToolError(f"Failed to list transactions: {error}") from error
    tabbed_table(
        LISTED,
        [
            [state["transactional_id"], str(broker), str(state["producer_id"]), state["transaction_state"]]
            for broker, state in listed
        ],
    )


def describe(admin: TransactionAdmin, options: Namespace) -> None:
    """One transactional id."""
    name = options.transactional_id
    try:
        coordinator, state = admin.described(name)
    except ToolError as error:
        raise ToolError(
            f"Failed to describe transaction state of transactional-id `{name}`: {error}"
        ) from error
    start_ms = state["transaction_start_time_ms"]
    begun = start_ms >= 0
    row = [
        str(coordinator),
        name,
        str(state["producer_id"]),
        str(state["producer_epoch"]),
        state["transaction_state"],
        str(state["transaction_timeout_ms"]),
        str(start_ms) if begun else "None",
        str(_now_ms() - start_ms) if begun else "None",
        ",".join(f"{topic}-{index}" for topic, index in sorted(admin.partitions_of(state))),
    ]
    tabbed_table(DESCRIBED, [row])


def describe_producers(admin: TransactionAdmin, options: Namespace) -> None:
    """What a replica remembers of who wrote to it."""
    producers = _producers(admin, options, "describe producers for")
    tabbed_table(
        PRODUCERS,
        [
            [
                str(each["producer_id"]),
                str(each["producer_epoch"]),
                str(each["coordinator_epoch"]),
                str(each["last_sequence"]),
                str(each["last_timestamp"]),
                str(each["current_txn_start_offset"]) if each["current_txn_start_offset"] >= 0 else "None",
            ]
            for each in producers
        ],
    )


def _producers(admin: TransactionAdmin, options: Namespace, doing: str) -> list[dict[str, Any]]:
    part = (options.topic, options.partition)
    broker = getattr(options, "broker_id", None)
    try:
        return admin.producers([part], broker)[part]
    except ToolError as error:
        where = ""
        if options.command == "describe-producers":
            where = " on leader" if broker is None else f" on broker {broker}"
        raise ToolError(f"Failed to {doing} partition {part[0]}-{part[1]}{where}: {error}") from error


def abort(admin: TransactionAdmin, options: Namespace) -> None:
    """Write an abort marker where the coordinator has forgotten to."""
    part = f"{options.topic}-{options.partition}"
    if options.start_offset is None:
        producer_id, epoch = options.producer_id, options.producer_epoch
        coordinator_epoch = options.coordinator_epoch
    else:
        open_there = [
            each
            for each in _producers(admin, options, "validate producer state for")
            if each["current_txn_start_offset"] == options.start_offset
        ]
        if options.start_offset < 0 or not open_there:
            raise ToolError(
                f"Could not find any open transactions starting at offset {options.start_offset} on partition {part}"
            )
        (found, *_) = open_there
        producer_id, epoch = found["producer_id"], found["producer_epoch"]
        coordinator_epoch = found["coordinator_epoch"]
    # A producer whose first transaction hangs has had no coordinator yet (-1): 0 is older than any.
    coordinator_epoch = max(coordinator_epoch, 0)
    try:
        admin.abort(options.topic, options.partition, producer_id, epoch, coordinator_epoch)
    except ToolError as error:
        spec = (
            f"AbortTransactionSpec(topicPartition={part}, producerId={producer_id}, producerEpoch={epoch}, "
            f"coordinatorEpoch={coordinator_epoch})"
        )
        raise ToolError(f"Failed to abort transaction {spec}: {error}") from error


def find_hanging(admin: TransactionAdmin, options: Namespace) -> None:
    """Open transactions older than any may be, of which their coordinator knows nothing."""
    parts = (
        [(options.topic, options.partition)]
        if options.partition is not None
        else admin.partitions(options.topic, options.broker_id)
    )
    now_ms = _now_ms()
    oldest_ms = now_ms - options.max_transaction_timeout * MINUTE_MS
    old = [
        (part, each)
        for part, producers in admin.producers(parts, options.broker_id).items()
        for each in producers
        if each["current_txn_start_offset"] >= 0 and each["last_timestamp"] < oldest_ms
    ]
    expected = admin.expected({each["producer_id"] for _, each in old}) if old else {}
    tabbed_table(
        HANGING,
        [
            [
                topic,
                str(index),
                str(each["producer_id"]),
                str(each["producer_epoch"]),
                str(each["coordinator_epoch"]),
                str(each["current_txn_start_offset"]),
                str(each["last_timestamp"]),
                str((now_ms - each["last_timestamp"]) // MINUTE_MS),
            ]
            for (topic, index), each in old
            if (topic, index) not in expected.get(each["producer_id"], ())
        ],
    )


def terminate(admin: TransactionAdmin, options: Namespace) -> None:
    """Fence the producer of a transactional id, which aborts what it has open."""
    try:
        admin.fence(options.transactional_id)
    except ToolError as error:
        raise ToolError(
            f"Failed to force terminate transactionalId `{options.transactional_id}`: {error}"
        ) from error


def _now_ms() -> int:
    return int(time.time() * 1000)
