"""The verdict on a history: which anomalies it shows, by the names that Jepsen gave them.

Sources: Jepsen's Kafka workload and its analyses of Kafka, Redpanda and Bufstream. Each anomaly is an ERROR, or ALLOWED
where Kafka promises nothing better (it is counted, and does not fail a run). `ANOMALIES` says what each one is.

The truth of a partition is the last reading of everything (`Poll.final`), after all faults, together with what any
consumer was told before.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from odradek.chaos.group_anomalies import check_groups
from odradek.chaos.history import Event
from odradek.chaos.log_anomalies import check_log
from odradek.chaos.model import Anomaly, Model
from odradek.chaos.transaction_anomalies import check_transactions

ERRORS = {
    "lost-write": "an acknowledged record is missing, though later ones of its partition were read",
    "unseen": "an acknowledged record was never read, not even at the end",
    "duplicate": "a record is there twice, though its producer is idempotent",
    "inconsistent-offsets": "two records were seen at one offset, or a record not where its producer was told",
    "aborted-read": "a reader of committed records saw one of an aborted transaction, or one that was refused (G1a)",
    "precommitted-read": "a reader of committed records saw one before its transaction asked to be committed",
    "torn-transaction": "in the end, a part of a transaction is there and another is not",
    "processed-twice": "consume, transform, produce: a record was worked off into two",
    "unprocessed": "consume, transform, produce: a record was left out",
    "int-poll-skip": "one poll left out records between others that it returned",
    "int-nonmonotonic-poll": "one poll returned records of a partition out of order",
    "poll-skip": "a consumer left out records between two polls, without having been given other partitions",
    "nonmonotonic-poll": "a consumer went back between two polls, without having been given other partitions",
    "nonmonotonic-send": "a producer's later record, sent after the earlier was acknowledged, stands before it",
    "unknown-value": "a record was read that nobody sent",
    "lost-commit": "an offset was committed, and later the group was told that there is none",
    "offset-fell-back": "a group was told a lower offset than one committed before, which nobody committed since",
    "double-owner": "two members of one generation owned a partition",
    "zombie-commit": "a former owner committed after the next one had committed in a later generation",
}
ALLOWED = {
    "int-send-skip": "other records stand between those of one transaction in a partition",
}


@dataclass(slots=True)
class Verdict:
    """What `check` found. `valid`: no errors, and something to judge by."""

    anomalies: list[Anomaly]
    counts: Counter[str]
    """How many of each name; `anomalies` keeps the first of many."""
    sends: Counter[str] = field(default_factory=Counter)
    """Records sent, by outcome."""
    transactions: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    commits: int = 0
    complete: bool = True
    """Whether the history has a last reading of everything: without one, nothing can be said of lost records."""

    @property
    def errors(self) -> dict[str, int]:
        return {name: count for name, count in sorted(self.counts.items()) if name in ERRORS}

    @property
    def valid(self) -> bool:
        return not self.errors and self.complete and self.sends["ok"] > 0 and self.reads > 0


KEPT_OF_EACH = 20


def check(events: Iterable[Event]) -> Verdict:
    """Judge a complete history."""
    collecting = gc.isenabled()
    gc.disable()  # millions of objects without a cycle, which a collection would look through again and again
    try:
        return _check(Model(events))
    finally:
        if collecting:
            gc.enable()


def _check(model: Model) -> Verdict:
    found: list[Anomaly] = []
    counts: Counter[str] = Counter()
    for part in (check_log, check_transactions, check_groups):
        for anomaly in part(model):
            counts[anomaly.name] += 1
            if counts[anomaly.name] <= KEPT_OF_EACH:
                found.append(anomaly)
    return Verdict(
        anomalies=found,
        counts=counts,
        sends=Counter(send.outcome for send in model.sends.values()),
        transactions=Counter(each.outcome for each in model.transactions.values()),
        reads=model.reads.count,
        commits=len(model.commits),
        complete=model.has_final,
    )
