"""`kafka-dump-log`: what the files of a log hold, line for line as Kafka's DumpLogSegments prints it.

Reads files that nobody writes, and those of a running node up to their last whole batch. Nothing is changed. Decoders
in Java classes are not there; text is the default of both tools.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO

from odradek.cli import dump_decoders as decoders
from odradek.cli.dump_indexes import Findings, dump_index, dump_producers, dump_time_index, dump_transactions
from odradek.cli.options import ToolError, ToolParser, program_name, run_tool, warn
from odradek.raft.snapshots import parse_name
from odradek.wire.errors import KafkaError, MalformedMessage
from odradek.wire.messages.kraft_version_record import KRaftVersionRecord
from odradek.wire.messages.leader_change_message import LeaderChangeMessage
from odradek.wire.messages.snapshot_footer_record import SnapshotFooterRecord
from odradek.wire.messages.snapshot_header_record import SnapshotHeaderRecord
from odradek.wire.messages.voters_record import VotersRecord
from odradek.wire.primitives import Message
from odradek.wire.records import (
    HEADER_SIZE,
    LOG_OVERHEAD,
    BatchHeader,
    ControlType,
    Record,
    control_type,
    crc_ok,
    increment_sequence,
    parse_end_txn_marker,
    parse_header,
    read_records,
)

INT_MAX = 0x7FFFFFFF
BATCH_BYTES_MAX = 1 << 30
"""What one batch may decompress to."""
BOOTSTRAP = "bootstrap.checkpoint"
STRING_DECODER = "StringDecoder"

CONTROL_MESSAGES: dict[ControlType, tuple[str, type[Message]]] = {
    ControlType.LEADER_CHANGE: ("LeaderChange:", LeaderChangeMessage),
    ControlType.SNAPSHOT_HEADER: ("SnapshotHeader", SnapshotHeaderRecord),
    ControlType.SNAPSHOT_FOOTER: ("SnapshotFooter", SnapshotFooterRecord),
    ControlType.KRAFT_VERSION: ("KRaftVersion", KRaftVersionRecord),
    ControlType.KRAFT_VOTERS: ("KRaftVoters", VotersRecord),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    parser.require(options, "files")
    decoder = chosen_decoder(options)
    contents = decoder is not None or options.print_data_log
    printer = LogPrinter(
        decoder or decoders.text,
        deep=contents or options.deep_iteration,
        contents=contents,
        metadata=not options.skip_record_metadata,
        max_bytes=options.max_bytes,
    )
    findings = Findings()
    index = partial(
        dump_index, sanity=options.index_sanity_check, quiet=options.verify_index_only, findings=findings
    )
    times = partial(
        dump_time_index, sanity=options.index_sanity_check, quiet=options.verify_index_only, findings=findings
    )
    dumps: dict[str, Callable[[str], None]] = {
        ".log": printer.dump,
        ".checkpoint": printer.dump,
        ".index": index,
        ".timeindex": times,
        ".snapshot": dump_producers,
        ".txnindex": dump_transactions,
    }
    for path in options.files.split(","):
        print(f"Dumping {path}")
        dump = dumps.get(os.path.splitext(path)[1])
        if dump is None:
            warn(f"Ignoring unknown file {path}")
            continue
        try:
            dump(path)
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror or error}") from None
        except (KafkaError, MalformedMessage) as error:
            raise ToolError(f"{path}: {error}") from None
    for line in (*findings.lines(), *printer.gaps()):
        warn(line)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek dump-log"),
        description="This tool helps to parse a log file and dump its contents to the console, useful for debugging a "
        "seemingly corrupt log segment.",
    )
    flag = partial(parser.add_argument, action="store_true")
    parser.add_argument(
        "--files",
        metavar="FILE,…",
        help="REQUIRED: The comma separated list of data and index log files to be dumped.",
    )
    flag(
        "--print-data-log",
        help="Print the content of the messages. Automatically set if any decoder option is specified.",
    )
    flag("--deep-iteration", help="Print each record, not only each batch. Set if contents are printed.")
    flag(
        "--skip-record-metadata",
        help="Skip metadata when printing records. This flag also skips control records.",
    )
    flag("--index-sanity-check", help="Only check whether a start of the broker would rebuild an index.")
    flag("--verify-index-only", help="Just verify the index log without printing its content.")
    flag("--offsets-decoder", help="Parse as records of the __consumer_offsets topic.")
    flag("--transaction-log-decoder", help="Parse as records of the __transaction_state topic.")
    flag("--share-group-state-decoder", help="Parse as records of the __share_group_state topic.")
    flag("--cluster-metadata-decoder", help="Parse as records of the cluster's metadata.")
    for option in ("--key-decoder-class", "--value-decoder-class"):
        parser.add_argument(
            option, nargs="?", const=STRING_DECODER, metavar="CLASS", help="Only StringDecoder."
        )
    parser.add_argument(
        "--max-bytes",
        type=int,
        default=INT_MAX,
        metavar="SIZE",
        help="Read only batches within so many bytes.",
    )
    parser.add_argument(
        "--max-message-size", type=int, default=5 << 20, metavar="SIZE", help="Taken, and not needed."
    )
    parser.add_version()
    return parser


def chosen_decoder(options: Namespace) -> decoders.Decoder | None:
    """The decoder that the options ask for, by Kafka's precedence; None: they ask for none."""
    if options.offsets_decoder:
        return decoders.coordinator(decoders.GROUPS)
    if options.transaction_log_decoder:
        return decoders.coordinator(decoders.TRANSACTIONS)
    if options.cluster_metadata_decoder:
        return decoders.cluster_metadata
    if options.share_group_state_decoder:
        return decoders.coordinator(decoders.SHARE_GROUP_STATE)
    classes = {
        "--key-decoder-class": options.key_decoder_class,
        "--value-decoder-class": options.value_decoder_class,
    }
    for option, java_class in classes.items():
        if java_class is not None and java_class.rpartition(".")[2] != STRING_DECODER:
            raise ToolError(f"{option} {java_class}: there is only {STRING_DECODER}")
    return decoders.text if any(classes.values()) else None


class LogPrinter:
    """Segments and snapshots, batch by batch."""

    def __init__(
        self, decoder: decoders.Decoder, *, deep: bool, contents: bool, metadata: bool, max_bytes: int
    ) -> None:
        self._decoder = decoder
        self._deep = deep
        self._contents = contents
        self._metadata = metadata
        self._max_bytes = max_bytes
        self._gaps: dict[str, list[tuple[int, int]]] = {}

    def dump(self, path: str) -> None:
        """One file. KafkaError or MalformedMessage where it holds what is no batch."""
        name = os.path.basename(path)
        print(_title(name))
        position, last = 0, -1
        with open(path, "rb") as file:
            limit = min(os.fstat(file.fileno()).st_size, self._max_bytes)
            for header, batch in batches(file, limit):
                print(batch_line(header, batch, position))
                position += header.size
                if self._deep:
                    last = self._dump_records(path, header, batch, last)
        if position < limit and self._max_bytes == INT_MAX:
            print(f"Found {limit - position} invalid bytes at the end of {name}")

    def gaps(self) -> Iterator[str]:
        """Records that do not follow each other. Kafka's tool suspects the first one of a file, too."""
        for path, pairs in self._gaps.items():
            yield f"Non-consecutive offsets in {os.path.abspath(path)}"
            for first, second in pairs:
                yield f"  {first} is followed by {second}"

    def _dump_records(self, path: str, header: BatchHeader, batch: bytes, last: int) -> int:
        """The offset of the last record. `last`: of the one before the batch, -1 for none."""
        for record in read_records(batch, header, limit=BATCH_BYTES_MAX):
            if last != -1 and record.offset != last + 1:
                self._gaps.setdefault(path, []).append((last, record.offset))
            last = record.offset
            if self._metadata or not header.is_control:
                print("|" + self._about(header, record) + self._content(header, record))
        return last

    def _about(self, header: BatchHeader, record: Record) -> str:
        if not self._metadata:
            return ""
        sequence = header.base_sequence
        if sequence >= 0:
            sequence = increment_sequence(sequence, record.offset - header.base_offset)
        line = (
            f" offset: {record.offset} {_time_type(header)}: {record.timestamp} keySize: {_size(record.key)} "
            f"valueSize: {_size(record.value)} sequence: {sequence} "
            f"headerKeys: [{','.join(name for name, _ in record.headers)}]"
        )
        return line + control_text(record) if header.is_control else line

    def _content(self, header: BatchHeader, record: Record) -> str:
        if not self._contents or header.is_control:
            return ""
        key, payload = self._decoder(record)
        return ("" if key is None else f" key: {key}") + ("" if payload is None else f" payload: {payload}")


def batches(file: IO[bytes], limit: int) -> Iterator[tuple[BatchHeader, bytes]]:
    """Every whole batch below `limit` bytes."""
    left = limit
    while left >= HEADER_SIZE:
        head = file.read(HEADER_SIZE)
        header = parse_header(head)
        if header.size > left:
            return
        yield header, head + file.read(header.size - HEADER_SIZE)
        left -= header.size


def batch_line(header: BatchHeader, batch: bytes, position: int) -> str:
    horizon = header.delete_horizon_ms
    return (
        f"baseOffset: {header.base_offset} lastOffset: {header.last_offset} count: {header.count} "
        f"baseSequence: {header.base_sequence} lastSequence: {header.last_sequence} "
        f"producerId: {header.producer_id} producerEpoch: {header.producer_epoch} "
        f"partitionLeaderEpoch: {header.leader_epoch} isTransactional: {_flag(header.is_transactional)} "
        f"isControl: {_flag(header.is_control)} "
        f"deleteHorizonMs: {'OptionalLong.empty' if horizon is None else f'OptionalLong[{horizon}]'} "
        f"position: {position} {_time_type(header)}: {header.max_timestamp} size: {header.length + LOG_OVERHEAD} "
        f"magic: {header.magic} compresscodec: {header.codec.name.lower()} crc: {header.crc} "
        f"isvalid: {_flag(crc_ok(batch))}"
    )


def control_text(record: Record) -> str:
    """What a control record says."""
    kind = control_type(record.key)
    if kind in (ControlType.ABORT, ControlType.COMMIT):
        marker = parse_end_txn_marker(record)
        return f" endTxnMarker: {kind.name} coordinatorEpoch: {marker.coordinator_epoch}"
    known = CONTROL_MESSAGES.get(kind)
    if known is None:
        return f" controlType: {kind.name}({kind.value})"
    name, message = known
    value = record.value or b""
    version = int.from_bytes(value[:2], "big")  # each of them begins with its version
    decoded = message.decode(value, version)
    return f" {name} {decoders.to_json(decoders.message_json(decoded, version))}"


def _title(name: str) -> str:
    if name == BOOTSTRAP:
        return "KRaft bootstrap snapshot"
    if name.endswith(".checkpoint"):
        snapshot = parse_name(name)
        if snapshot is None:
            raise ToolError(f"{name} is not the name of a snapshot")
        return f"Snapshot end offset: {snapshot.offset}, epoch: {snapshot.epoch}"
    return f"Log starting offset: {start_offset(name)}"


def start_offset(name: str) -> int:
    """The offset that the name of a file begins with."""
    stem = name.partition(".")[0]
    if not (stem.isascii() and stem.isdigit()):
        raise ToolError(f"{name} does not begin with an offset")
    return int(stem)


def _time_type(header: BatchHeader) -> str:
    return "LogAppendTime" if header.is_log_append_time else "CreateTime"


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _flag(value: bool) -> str:
    return "true" if value else "false"
