"""How Hypothesis searches, and where Python keeps what it has compiled.

By default every run tries the same examples, however slow the machine is: a change that breaks nothing passes.
What nobody has thought of yet is looked for by a command of its own, with new examples each time:

    make test ARGS="tests/property tests/unit -n 2 --hypothesis-profile=search --timeout=0"
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no bug: neither an example that takes long nor data that is made slowly.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)

settings.register_profile("repeatable", UNHURRIED, derandomize=True, database=None)
settings.register_profile("search", UNHURRIED, max_examples=2_500)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Where Python is told to keep no compiled modules, each of the hundreds of nodes and tools that tests start would
    compile the product anew, which takes as long as all else of their start. They share what the first has compiled.
    """
    if not os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        yield
        return
    # A process that is on its way out may write while this is removed.
    with tempfile.TemporaryDirectory(
        prefix="odradek-test-compiled-", ignore_cleanup_errors=True
    ) as directory:
        os.environ["PYTHONPYCACHEPREFIX"] = directory
        yield
        del os.environ["PYTHONPYCACHEPREFIX"]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
