"""Descriptors are shared out so that connections cannot take those of the log."""

from __future__ import annotations

import resource

import pytest

from odradek.broker.descriptors import RESERVED, SEGMENT_FILES_MAX, raise_limit, share_out


@pytest.mark.parametrize("limit", [16, 64, 200, 256, 1024, 4096, 20_000, 1 << 20])
def test_all_kinds_together_stay_below_the_limit(limit: int) -> None:
    shares = share_out(limit)
    assert shares.segment_files >= 1
    assert shares.connections + shares.file_senders >= shares.segment_files
    assert shares.connections >= shares.file_senders
    assert sum(shares) <= limit - min(RESERVED, limit // 2)


def test_with_many_descriptors_most_are_for_connections() -> None:
    shares = share_out(100_000)
    assert shares.segment_files == SEGMENT_FILES_MAX
    assert shares.connections > 70_000
    assert sum(shares) == 100_000 - RESERVED


def test_the_limit_is_raised_to_what_is_allowed() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
        assert raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
