"""Fixtures: the first process of a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.first_process import First


@pytest.fixture
def first(tmp_path: Path) -> Iterator[First]:
    made = First(tmp_path / "data")
    yield made
    made.kill()
