"""The committed stubs are what the compiler makes of the .proto files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[3] / "proto"
VERSIONED = re.compile(r"# Protobuf Python Version:.*|^    \d+,$", re.MULTILINE)


def test_stubs_are_up_to_date(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    sources = sorted((PROTO / "odradek/rpc/v1").glob("*.proto"))
    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    if not plugin.exists():
        pytest.skip("mypy-protobuf is not installed")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--plugin=protoc-gen-mypy={plugin}"]
    outputs = [f"--python_out={tmp_path}", f"--mypy_out={tmp_path}"]
    subprocess.run([*command, *outputs, *map(str, sources)], check=True, timeout=60, capture_output=True)
    made = sorted((tmp_path / "odradek/rpc/v1").iterdir())
    assert len(made) == 2 * len(sources) == 10
    for path in made:
        committed = (PROTO / "odradek/rpc/v1" / path.name).read_text()
        # another release of the compiler may write its own version
        assert VERSIONED.sub("", committed) == VERSIONED.sub("", path.read_text()), path.name
