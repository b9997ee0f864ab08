"""Deliberately broken versions of the product, each by its name: the simulator has to catch every one.

A mutant replaces one function for the time of a run; what it breaks is in its text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

MUTANTS: dict[str, Any] = {}


@contextmanager
def applied(name: str | None) -> Iterator[None]:
    """Break the product for a while. KeyError for a name that there is not."""
    with ExitStack() as stack:
        if name is not None:
            for target, attribute, replacement in MUTANTS[name]():
                stack.enter_context(patch.object(target, attribute, replacement))
        yield
