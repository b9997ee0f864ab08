"""How many examples Hypothesis tries where a hundred are too few or too many."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> settings:
    """`count` of them by default; more in the same measure where the profile tries more than a hundred."""
    return settings(max_examples=count * settings.default.max_examples // 100)
