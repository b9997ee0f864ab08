"""Transcripts of transaction requests: a line per request, a line per answer, in files that Apache Kafka has written.

    > a init t=tx timeout=10000                request, on a connection (and client id) of its own named `a`
    < a init producer_id=<P1>                  what came back, sorted by name
    > a init*100 t=tx                          the same a hundred times; the last answer
    > wait 500                                 milliseconds
    # anything else

A request may name its version (`end/4`); else the newest that Kafka 4.3 calls stable. Producer ids are told by order
of appearance (`<P1>`, `<P1+7>` for one that was never told), times as `<time>`. `t=` takes Python's escapes;
`LONG300` is an id of 300 characters, and without `t=` there is none. Only fields that differ from the message's
defaults are shown.

`record.py` runs a file against a real Kafka and writes down its answers; the unit tests run it against ours in virtual
time and compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from odradek.wire.apis import ApiKey, request_class
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.add_offsets_to_txn import AddOffsetsToTxnRequest
from odradek.wire.messages.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from odradek.wire.messages.describe_transactions import DescribeTransactionsRequest
from odradek.wire.messages.end_txn import EndTxnRequest
from odradek.wire.messages.init_producer_id import InitProducerIdRequest
from odradek.wire.messages.list_transactions import ListTransactionsRequest
from odradek.wire.primitives import Message, Struct

STEP_MS = 300
"""How long a step lasts: what Kafka needs to write its markers and become quiet."""
CHUNK = 500
"""Repetitions sent at once."""

CONFIG = {
    "transaction.max.timeout.ms": 60_000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 200,
}
"""What the recorded Kafka ran with; 4 partitions of `__transaction_state`, and `TOPICS`."""

TOPICS = {"orders": 8, "users": 4}
OFFSETS_PARTITIONS = 1
"""Of the group `grp`, whose partition the answers do not depend on."""

API_KEYS = {
    "init": ApiKey.INIT_PRODUCER_ID,
    "add": ApiKey.ADD_PARTITIONS_TO_TXN,
    "offsets": ApiKey.ADD_OFFSETS_TO_TXN,
    "end": ApiKey.END_TXN,
    "describe": ApiKey.DESCRIBE_TRANSACTIONS,
    "list": ApiKey.LIST_TRANSACTIONS,
}
NEWEST = {"init": 5, "add": 3}
"""Where the newest version is for brokers only, or not stable."""


class Symbols:
    """What differs in each run, by names that do not: producer ids, and transactional ids if `prefix` is given."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._producers: list[int] = []

    def transactional_id(self, text: str) -> str:
        """The id in this run. The empty one stays empty."""
        if text.startswith("LONG"):
            return self.prefix.ljust(int(text.removeprefix("LONG")), "x")
        text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
        return text and self.prefix + text

    def shown(self, transactional_id: str) -> str:
        if len(transactional_id) > 100:
            return f"LONG{len(transactional_id)}"
        return ascii(transactional_id.removeprefix(self.prefix))

    def producer(self, producer_id: int) -> str:
        if producer_id < 0:
            return str(producer_id)
        if producer_id not in self._producers:
            self._producers.append(producer_id)
        return f"<P{self._producers.index(producer_id) + 1}>"

    def producer_id(self, text: str) -> int:
        match = re.fullmatch(r"<P(\d+)(?:\+(\d+))?>", text)
        if match is None:
            return int(text)
        return self._producers[int(match[1]) - 1] + int(match[2] or 0)


class Request:
    """One parsed request line."""

    def __init__(self, line: str, symbols: Symbols) -> None:
        _, self.label, verb, *words = line.split(" ")
        verb, _, times = verb.partition("*")
        self.times = int(times or 1)
        self.verb, _, version = verb.partition("/")
        self.api_key = API_KEYS[self.verb]
        cls = request_class(self.api_key)
        self.version = int(version) if version else NEWEST.get(self.verb, cls.MAX_VERSION)
        arguments = {key: value for key, _, value in (word.partition("=") for word in words)}
        self.body: Message = BUILDERS[self.verb](arguments, self.version, symbols)


def _id(a: dict[str, str], symbols: Symbols) -> str:
    return symbols.transactional_id(a["t"])


def _producer(a: dict[str, str], symbols: Symbols, default: str = "<P1>") -> tuple[int, int]:
    return symbols.producer_id(a.get("pid", default)), int(a.get("epoch", "0"))


def _init(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    request = InitProducerIdRequest(_id(a, symbols) if "t" in a else None, int(a.get("timeout", "10000")))
    if "pid" in a:
        request.producer_id = symbols.producer_id(a["pid"])
    if "epoch" in a:
        request.producer_epoch = int(a["epoch"])
    return request


def _topics(text: str) -> list[AddPartitionsToTxnTopic]:
    topics: dict[str, AddPartitionsToTxnTopic] = {}
    for place in text.split("+"):
        name, _, index = place.partition("/")
        if name:
            topics.setdefault(name, AddPartitionsToTxnTopic(name)).partitions.append(int(index))
    return list(topics.values())


def _add(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    """Up to version 3: p=orders/0+orders/1. From version 4 on: txns=tx:<P1>:0:orders/0,other:<P2>:3:users/1:verify"""
    if version < 4:
        producer_id, epoch = _producer(a, symbols)
        return AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=_id(a, symbols),
            v3_and_below_producer_id=producer_id,
            v3_and_below_producer_epoch=epoch,
            v3_and_below_topics=_topics(a.get("p", "orders/0")),
        )
    transactions = []
    for text in a["txns"].split(","):
        name, producer, epoch_text, topics, *verify = text.split(":")
        transactions.append(
            AddPartitionsToTxnTransaction(
                symbols.transactional_id(name),
                symbols.producer_id(producer),
                int(epoch_text),
                bool(verify),
                _topics(topics),
            )
        )
    return AddPartitionsToTxnRequest(transactions=transactions)


def _offsets(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    return AddOffsetsToTxnRequest(_id(a, symbols), *_producer(a, symbols), a.get("g", "grp"))


def _end(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    return EndTxnRequest(_id(a, symbols), *_producer(a, symbols), "abort" not in a)


def _describe(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    return DescribeTransactionsRequest([symbols.transactional_id(each) for each in a["t"].split(",")])


def _list(a: dict[str, str], version: int, symbols: Symbols) -> Message:
    request = ListTransactionsRequest(
        [name for name in a.get("states", "").split(",") if name],
        [symbols.producer_id(each) for each in a.get("pids", "").split(",") if each],
    )
    if "longer" in a:
        request.duration_filter = int(a["longer"])
    if "pattern" in a:
        request.transactional_id_pattern = a["pattern"].replace("<run>", symbols.prefix)
    return request


BUILDERS: dict[str, Callable[[dict[str, str], int, Symbols], Message]] = {
    "init": _init,
    "add": _add,
    "offsets": _offsets,
    "end": _end,
    "describe": _describe,
    "list": _list,
}

_SILENT = {"throttle_time_ms", "unknown_tagged_fields"}
_ERRORS = {"error_code", "partition_error_code"}
_PRODUCERS = {"producer_id", "ongoing_txn_producer_id"}


def show(response: Struct, symbols: Symbols) -> str:
    """The fields that differ from their defaults, on one line."""
    default = type(response)()
    words: list[str] = []
    for field in type(response).__slots__:
        value = getattr(response, field)
        if field in _PRODUCERS and getattr(response, "error_code", 0):
            continue
        if field == "transaction_states":
            value = [state for state in value if state.transactional_id.startswith(symbols.prefix)] or [
                state for state in value if state.transactional_id == ""
            ]
        if field in _SILENT or (value == getattr(default, field) and field not in _PRODUCERS):
            continue
        if field in _ERRORS:
            words.insert(0, ErrorCode(value).name)
        elif field not in _PRODUCERS or value != -1:
            words.append(f"{field}={_text(field, value, symbols)}")
    return " ".join(words) or "ok"


def _text(field: str, value: Any, symbols: Symbols) -> str:
    if isinstance(value, list):
        texts = [f"{{{show(each, symbols)}}}" if isinstance(each, Struct) else str(each) for each in value]
        return f"[{' '.join(sorted(texts))}]"
    if field in _PRODUCERS:
        return symbols.producer(value)
    if field == "transactional_id":
        return symbols.shown(value)
    if field.endswith("_time_ms"):
        return str(value) if value < 0 else "<time>"
    return str(value)


Send = Callable[[Request], None]
Collect = Callable[[int, int], list[tuple[str, str, Message]]]


def run(lines: list[str], symbols: Symbols, send: Send, collect: Collect) -> Iterator[str]:
    """Send each request and note what comes.

    `collect(ms, count)` waits for `count` answers, and then for what else comes within `ms`: (label, verb, response)s.
    """
    for line in lines:
        if line.startswith("<"):
            continue
        yield line
        if not line.startswith(">"):
            continue
        words = line.split(" ")
        if words[1] == "wait":
            answers = collect(int(words[2]), 0)
        else:
            request = Request(line, symbols)
            for begin in range(0, request.times - 1, CHUNK):
                count = min(CHUNK, request.times - 1 - begin)
                for _ in range(count):
                    send(request)
                collect(0, count)
            send(request)
            answers = collect(STEP_MS, 1)
        for label, verb, response in sorted(answers, key=lambda answer: answer[0]):
            yield f"< {label} {verb} {show(response, symbols)}"
