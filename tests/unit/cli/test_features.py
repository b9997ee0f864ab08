"""`kafka-features` on paper: what needs no cluster. With one: tests/interop/test_kafka_tools.py."""

from __future__ import annotations

import pytest

from odradek.cli.features import RELEASES, defaults, level_of, level_text, name_and_level, run
from odradek.cli.options import ToolError

AT = ["--bootstrap-server", "nowhere:1"]


def test_releases_have_levels_and_levels_releases() -> None:
    assert level_of("3.3-IV3") == 7
    assert level_of("4.3-IV0") == 30
    assert level_of("4.0") == level_of("4.0-IV3") == 25
    assert [level_text("metadata.version", level_of(name)) for name in RELEASES] == list(RELEASES)
    assert level_text("metadata.version", 99) == "UNKNOWN 99"
    assert level_text("group.version", 1) == "1"


@pytest.mark.parametrize(
    ("release", "expected"),
    [("3.9-IV0", 0), ("4.0-IV0", 0), ("4.0-IV1", 0), ("4.0-IV2", 2), ("4.3-IV0", 2)],
)
def test_transaction_version_2_came_with_4_0(release: str, expected: int) -> None:
    assert defaults(level_of(release))["transaction.version"] == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["upgrade"], "You must specify at least one feature to upgrade"),
        (["disable"], "You must specify at least one feature to disable"),
        (["upgrade", "--feature", "a"], "Can't parse feature=level string a: equals sign not found."),
        (
            ["upgrade", "--feature", "a=x"],
            "Can't parse feature=level string a=x: unable to parse x as a short.",
        ),
        (
            ["upgrade", "--feature", "a=40000"],
            "Can't parse feature=level string a=40000: unable to parse 40000 as a short.",
        ),
        (["upgrade", "--feature", "a=1", "--feature", "a=2"], "Feature a was specified more than once."),
        (
            ["upgrade", "--feature", "a=1", "--release-version", "4.3"],
            "Can not specify `release-version` with other feature flags.",
        ),
        (["version-mapping", "--release-version", "9"], "Unknown metadata.version '9'."),
        (["feature-dependencies", "--feature", "group.version=7"], "No feature:group.version"),
        (["feature-dependencies", "--feature", "nothing=7"], "Unknown feature: nothing"),
        (["feature-dependencies", "--feature", "metadata.version=3"], "Unknown metadata.version 3"),
    ],
)
def test_what_is_wrong_is_told_before_anybody_is_asked(arguments: list[str], says: str) -> None:
    with pytest.raises(ToolError) as error:
        run([*AT, *arguments])
    assert str(error.value).startswith(says)


def test_spaces_around_a_level_do_not_count() -> None:
    assert name_and_level(" group.version = 1 ") == ("group.version", 1)
