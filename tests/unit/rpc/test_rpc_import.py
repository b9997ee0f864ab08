"""A node without peers never loads gRPC: it would cost a tenth of a second and 20 MB at every start."""

import subprocess
import sys

PROGRAM = """
import sys
import odradek.broker.server, odradek.broker.node, odradek.controller.controller_node, odradek.raft.raft_driver
loaded = [name for name in ("grpc", "google.protobuf", "odradek.rpc") if name in sys.modules]
sys.exit(f"loaded: {loaded}" if loaded else 0)
"""


def test_a_node_loads_grpc_only_with_its_internal_server():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_internal_server_loads_it():
    program = "import sys, odradek.broker.internal_server; sys.exit('grpc' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
