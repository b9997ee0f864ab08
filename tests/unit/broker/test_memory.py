"""Allocator and collector settings, each tried in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_the_collector_forgets_what_was_loaded_and_runs_seldom() -> None:
    code = (
        "import gc; from odradek.broker.memory import GC_THRESHOLDS, tune_collector; tune_collector(); "
        "print(gc.get_freeze_count() > 1000, gc.get_threshold() == GC_THRESHOLDS)"
    )
    assert run(code) == "True True"


def test_a_c_library_without_mallopt_is_left_alone() -> None:
    code = (
        "import ctypes; ctypes.CDLL = lambda name: object(); "
        "from odradek.broker.memory import tune_memory; print(tune_memory())"
    )
    assert run(code) == "False"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to count page faults")
def test_freed_frames_stay_in_the_heap_on_glibc() -> None:
    """Eight 8 MB frames that come and go fault their pages in once, not each time."""
    code = (
        "import resource, sys; from odradek.broker.memory import tune_memory\n"
        "if sys.argv[1:] == ['tuned'] and not tune_memory(): print(-1); raise SystemExit\n"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "frames = [b'x' * (8 << 20) for _ in range(8)]; del frames; before = faults()\n"
        "for _ in range(5): frames = [b'x' * (8 << 20) for _ in range(8)]; del frames\n"
        "print(faults() - before)"
    )
    plain, tuned = int(run(code)), int(run(code, "tuned"))
    assert tuned < 0 or tuned < plain / 4
