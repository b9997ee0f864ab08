"""kafkajs, unmodified, from npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from interop import jvm

PROGRAM = Path(__file__).parent / "clients" / "stock_client.mjs"
PACKAGE = "kafkajs@2.2.4"


@pytest.fixture(scope="module")
def modules() -> Path:
    """A directory whose `node_modules` has the client; fetched once."""
    for needed in ("node", "npm"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder = jvm.cache_dir() / PACKAGE
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", scratch, PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not fetch {PACKAGE} within two minutes")
        if done.returncode != 0:
            pytest.skip(f"npm cannot fetch {PACKAGE}: {done.stderr[-300:]}")
        try:
            Path(scratch).rename(folder)
        except OSError:
            assert folder.is_dir()  # another test process was first
        else:
            Path(scratch).mkdir()  # for the clean-up
    return folder


def test_kafkajs(bootstrap: str, modules: Path) -> None:
    done = subprocess.run(
        ["node", str(PROGRAM), bootstrap, uuid.uuid4().hex[:8]],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "CLIENT_MODULES": str(modules), "KAFKAJS_NO_PARTITIONER_WARNING": "1"},
    )
    passed = [json.loads(line)["passed"] for line in done.stdout.splitlines()]
    assert (passed, done.returncode) == (["topics", "records", "groups"], 0), done.stderr[-3000:]
