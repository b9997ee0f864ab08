"""Quotas and configuration of replication."""

from __future__ import annotations

import pytest

from odradek.replication.config import ReplicationConfig
from odradek.replication.messages import FetchData, charge
from odradek.replication.throttle import UNLIMITED, ReplicationQuota, TokenBucket
from odradek.wire.errors import ErrorCode


def test_a_bucket_gives_one_second_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(1000, 0)
    assert bucket.wait_ms(0) == 0
    bucket.consume(1500, 0)
    assert bucket.wait_ms(0) == 501
    assert bucket.wait_ms(400) == 101
    assert bucket.wait_ms(501) == 0
    bucket.consume(1, 10_000)
    assert bucket.wait_ms(10_000) == 0


def test_over_time_a_bucket_lets_through_what_its_rate_says() -> None:
    bucket, sent = TokenBucket(10_000, 0), 0
    for now in range(0, 60_000, 7):
        if bucket.wait_ms(now) == 0:
            bucket.consume(333, now)
            sent += 333
    assert 600_000 <= sent <= 611_000


def test_a_quota_concerns_the_replicas_that_are_listed_and_only_while_there_is_a_rate() -> None:
    quota = ReplicationQuota()
    assert not quota.applies(("t", 0))
    quota.configure(1000, {("t", 0)}, 0)
    assert quota.applies(("t", 0)) and not quota.applies(("t", 1))
    quota.consume(3000, 0)
    quota.configure(1000, {("t", 1)}, 0)
    assert quota.wait_ms(0) == 2001, "another list does not forgive what was spent"
    quota.configure(UNLIMITED, {("t", 0)}, 0)
    assert not quota.applies(("t", 0)) and quota.wait_ms(0) == 0


def test_credit_counts_batches_and_a_little_for_each_partition() -> None:
    data = FetchData(b"t" * 16, 0, 0, 1, ErrorCode.NONE, None, 0, 0, 0, memoryview(b"x" * 100))
    assert charge(data) == 164


@pytest.mark.parametrize("field", ["replica_lag_time_max_ms", "stream_window_bytes", "backoff_max_ms"])
def test_a_configuration_out_of_bounds_names_its_field(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        ReplicationConfig(**{field: 0})
    assert ReplicationConfig(high_watermark_linger_ms=0).high_watermark_linger_ms == 0
