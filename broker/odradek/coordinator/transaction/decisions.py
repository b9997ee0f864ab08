"""What a request does to a transactional id: the rules of the transaction coordinator, and nothing else.

Each function looks at what is committed of an id (`known`, None if there is nothing), and says what it shall become
(a `Transaction`, to be written), or answers with an error code; NONE means that everything is as asked already.
`pending`: a record of the id is written and not committed yet. Whoever asks meanwhile has to come again:
CONCURRENT_TRANSACTIONS.

`fresh` is a producer id that nobody has, or None; a function that cannot do without raises `NeedsProducerId` and is
asked again.

Kafka 4.3; KIP-98 (transactions), KIP-360 (epochs bumped for producers after an error), KIP-588 (PRODUCER_FENCED),
KIP-890 (transaction.version 2: EndTxn bumps the epoch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from odradek.coordinator.transaction.state import (
    COMPLETE_ABORT,
    COMPLETE_COMMIT,
    EMPTY,
    EPOCH_MAX,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    ONGOING,
    PREPARE_ABORT,
    PREPARE_COMMIT,
    PREPARED,
    RESTING,
    TopicPartition,
    Transaction,
)
from odradek.wire.errors import ErrorCode

Decision: TypeAlias = Transaction | ErrorCode

EPOCH_BUMP_FROM = 2
"""The transaction.version from which every EndTxn bumps the epoch."""


class NeedsProducerId(Exception):  # noqa: N818 - a question, not an error
    """Ask again with a fresh producer id."""


def init_producer_id(
    known: Transaction | None,
    pending: bool,
    expected: tuple[int, int] | None,
    timeout_ms: int,
    server_version: int,
    now_ms: int,
    fresh: int | None,
) -> Decision:
    """A producer starts, or goes on after an error with the id and epoch it had (`expected`, KIP-360).

    A PrepareAbort in the result is the end of a transaction that somebody else has open: written, and answered with
    CONCURRENT_TRANSACTIONS.
    """
    if pending:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if known is None:
        known = Transaction(EMPTY, _taken(fresh), NO_PRODUCER_EPOCH, timeout_ms, now_ms)
    if expected is not None and not _may_be(known, *expected):
        return ErrorCode.PRODUCER_FENCED
    if known.state in PREPARED:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if known.state is ONGOING:
        return fence(known, server_version, now_ms, fresh)
    expected_epoch = None if expected is None else expected[1]
    epoch = known.producer_epoch
    if known.is_exhausted and expected_epoch in (None, epoch):
        last = NO_PRODUCER_EPOCH if expected_epoch is None else epoch
        return _start(known, timeout_ms, now_ms, 0, last, _taken(fresh))
    if expected_epoch is None:
        return _start(known, timeout_ms, now_ms, epoch + 1, NO_PRODUCER_EPOCH)
    if epoch in (NO_PRODUCER_EPOCH, expected_epoch):
        return _start(known, timeout_ms, now_ms, epoch + 1, epoch)
    if expected_epoch == known.last_epoch:
        return _start(known, timeout_ms, now_ms, epoch, expected_epoch)  # a retry: it has its epoch already
    return ErrorCode.PRODUCER_FENCED


def add_partitions(
    known: Transaction | None,
    pending: bool,
    producer_id: int,
    producer_epoch: int,
    partitions: Sequence[TopicPartition],
    client_version: int,
    now_ms: int,
) -> Decision:
    """A transaction begins, or goes on with more partitions."""
    if known is None or known.producer_id != producer_id:
        return _unknown(known, producer_id, producer_epoch)
    if known.producer_epoch != producer_epoch:
        return ErrorCode.PRODUCER_FENCED
    if pending or known.state in PREPARED:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if known.state is ONGOING and all(partition in known.partitions for partition in partitions):
        return ErrorCode.NONE
    return known.to(
        ONGOING,
        now_ms,
        partitions=known.partitions | dict.fromkeys(partitions),
        start_ms=now_ms if known.state in RESTING else known.start_ms,
        client_version=client_version,
    )


def verify(known: Transaction | None, producer_id: int, producer_epoch: int) -> ErrorCode:
    """Whether this producer may have a transaction open; which partitions are in it is the caller's to look up."""
    if known is None or known.producer_id != producer_id:
        return _unknown(known, producer_id, producer_epoch)
    if known.producer_epoch != producer_epoch:
        return ErrorCode.PRODUCER_FENCED
    if known.state in PREPARED:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    return ErrorCode.NONE


def end_transaction(
    known: Transaction | None,
    pending: bool,
    producer_id: int,
    producer_epoch: int,
    commit: bool,
    now_ms: int,
) -> Decision:
    """EndTxn up to version 4: the epoch stays, so an end that is repeated is told from the next one by its state."""
    if known is None or known.producer_id != producer_id:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if known.producer_epoch != producer_epoch:
        return ErrorCode.PRODUCER_FENCED
    if pending:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    state = known.state
    if state is ONGOING:
        prepared = PREPARE_COMMIT if commit else PREPARE_ABORT
        return known.to(prepared, now_ms, next_producer_id=NO_PRODUCER_ID, client_version=0)
    if state is (COMPLETE_COMMIT if commit else COMPLETE_ABORT):
        return ErrorCode.NONE
    if state is (PREPARE_COMMIT if commit else PREPARE_ABORT):
        return ErrorCode.CONCURRENT_TRANSACTIONS
    return ErrorCode.INVALID_TXN_STATE


def end_transaction_and_bump(
    known: Transaction | None,
    pending: bool,
    producer_id: int,
    producer_epoch: int,
    commit: bool,
    now_ms: int,
    fresh: int | None,
) -> Decision:
    """EndTxn from version 5 on: the epoch rises with every end, so one that is repeated has the epoch before.

                  abort, repeated    abort     commit, repeated   commit
    Empty         fenced             bump      fenced             invalid
    CompleteAbort done               bump      invalid            invalid
    CompleteCommit invalid           bump      done               invalid
    """
    if known is None:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    state = known.state
    epoch = known.producer_epoch
    overflown = known.previous_producer_id == producer_id and producer_epoch == EPOCH_MAX - 1 and epoch == 0
    repeated = overflown or epoch == producer_epoch + 1
    if known.producer_id != producer_id and not overflown:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if state in PREPARED:
        allowed = epoch == producer_epoch + 1
    elif state in (COMPLETE_COMMIT, COMPLETE_ABORT):
        allowed = repeated or epoch == producer_epoch
    else:
        allowed = epoch == producer_epoch
    if not allowed:
        return ErrorCode.PRODUCER_FENCED
    if pending:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if state is ONGOING:
        return _bump(known, PREPARE_COMMIT if commit else PREPARE_ABORT, now_ms, fresh)
    if state is (PREPARE_COMMIT if commit else PREPARE_ABORT):
        return ErrorCode.CONCURRENT_TRANSACTIONS
    if state in RESTING and not repeated and not commit:
        return _bump(known, PREPARE_ABORT, now_ms, fresh)
    if repeated and state is (COMPLETE_COMMIT if commit else COMPLETE_ABORT):
        return ErrorCode.NONE
    return ErrorCode.INVALID_TXN_STATE


def fence(known: Transaction, server_version: int, now_ms: int, fresh: int | None) -> Transaction:
    """Abort the transaction that is open, under an epoch that its producer does not have."""
    assert known.state is ONGOING
    if server_version >= EPOCH_BUMP_FROM:
        return _bump(known, PREPARE_ABORT, now_ms, fresh)
    return known.to(
        PREPARE_ABORT,
        now_ms,
        producer_epoch=min(known.producer_epoch + 1, EPOCH_MAX),
        last_epoch=NO_PRODUCER_EPOCH,
        next_producer_id=NO_PRODUCER_ID,
        client_version=0,
    )


def complete(known: Transaction, now_ms: int) -> Transaction:
    """Every partition has its marker."""
    state = COMPLETE_COMMIT if known.commits else COMPLETE_ABORT
    if known.client_version >= EPOCH_BUMP_FROM and known.next_producer_id != NO_PRODUCER_ID:
        return known.to(
            state,
            now_ms,
            producer_id=known.next_producer_id,
            producer_epoch=0,
            next_producer_id=NO_PRODUCER_ID,
            partitions={},
        )
    return known.to(state, now_ms, next_producer_id=NO_PRODUCER_ID, partitions={})


def _bump(known: Transaction, state: object, now_ms: int, fresh: int | None) -> Transaction:
    """End with the next epoch; when there is none left for a producer, with a new producer id to go on with."""
    assert state in (PREPARE_COMMIT, PREPARE_ABORT)
    epoch = known.producer_epoch
    return known.to(
        PREPARE_COMMIT if state is PREPARE_COMMIT else PREPARE_ABORT,
        now_ms,
        producer_epoch=min(epoch + 1, EPOCH_MAX),
        last_epoch=epoch,
        next_producer_id=_taken(fresh) if known.is_exhausted else NO_PRODUCER_ID,
        start_ms=known.start_ms if known.state is ONGOING else now_ms,
        client_version=EPOCH_BUMP_FROM,
    )


def _start(
    known: Transaction,
    timeout_ms: int,
    now_ms: int,
    epoch: int,
    last_epoch: int,
    producer_id: int | None = None,
) -> Transaction:
    return known.to(
        EMPTY,
        now_ms,
        producer_id=producer_id,
        producer_epoch=epoch,
        last_epoch=last_epoch,
        timeout_ms=timeout_ms,
        partitions={},
        start_ms=-1,
    )


def _may_be(known: Transaction, producer_id: int, epoch: int) -> bool:
    """Whether a producer with this id may be the one of the transactional id: a new one, the present one (its epoch is
    looked at later), or one that repeats the bump that used up its id."""
    return (
        known.producer_epoch == NO_PRODUCER_EPOCH
        or producer_id == known.producer_id
        or (producer_id == known.previous_producer_id and epoch >= EPOCH_MAX - 1)
    )


def _unknown(known: Transaction | None, producer_id: int, producer_epoch: int) -> ErrorCode:
    """Who was told its next producer id by EndTxn, and is faster than the markers, comes again. Kafka sends it away."""
    if (
        known is not None
        and known.state in PREPARED
        and known.next_producer_id == producer_id
        and producer_epoch == 0
    ):
        return ErrorCode.CONCURRENT_TRANSACTIONS
    return ErrorCode.INVALID_PRODUCER_ID_MAPPING


def _taken(fresh: int | None) -> int:
    if fresh is None:
        raise NeedsProducerId
    return fresh
