"""How Hypothesis searches.

By default every run tries the same examples, however slow the machine is: a change that breaks nothing passes.
What nobody has thought of yet is looked for by a command of its own, with new examples each time:

    make test ARGS="tests/property tests/unit -n 2 --hypothesis-profile=search --timeout=0"
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no bug: neither an example that takes long nor data that is made slowly.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)

settings.register_profile("repeatable", UNHURRIED, derandomize=True, database=None)
settings.register_profile("search", UNHURRIED, max_examples=2_500)
settings.load_profile("repeatable")
