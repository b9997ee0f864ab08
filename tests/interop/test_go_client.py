"""franz-go, unmodified: a client that always speaks the newest versions."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from interop import jvm

SOURCE = Path(__file__).parent / "clients" / "franz"


@pytest.fixture(scope="module")
def program() -> Path:
    """The client, built once for each version of its source, on request: it takes longer than all other tests."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    files = sorted(path for path in SOURCE.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    binary = jvm.cache_dir() / f"franz-{digest}"
    if binary.exists():
        return binary
    if "ODRADEK_TEST_GO" not in os.environ:
        pytest.skip(
            "franz-go is not built yet: ODRADEK_TEST_GO=1 fetches and builds it, which takes a minute or two"
        )
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        for path in files:
            shutil.copy(path, scratch)
        command = ["go", "build", "-mod=mod", "-o", "client", "."]
        try:
            done = subprocess.run(
                command, cwd=scratch, capture_output=True, text=True, timeout=240, check=False, env=os.environ
            )
        except subprocess.TimeoutExpired:
            pytest.skip("go did not fetch and build franz-go within four minutes")
        if done.returncode != 0:
            assert "main.go" not in done.stderr, done.stderr
            pytest.skip(f"go cannot fetch franz-go: {done.stderr[-300:]}")
        (Path(scratch) / "client").rename(binary)
    return binary


def test_franz_go(bootstrap: str, program: Path) -> None:
    done = subprocess.run(
        [str(program), bootstrap, uuid.uuid4().hex[:8]],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    passed = [json.loads(line)["passed"] for line in done.stdout.splitlines()]
    assert (passed, done.returncode) == (["admin", "codecs", "group"], 0), done.stderr[-3000:]
