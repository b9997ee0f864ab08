"""`kafka-transactions`: what is wrong with a command line is told before a cluster is asked."""

from __future__ import annotations

import pytest

from odradek.cli.options import ToolError
from odradek.cli.transactions import run

AT = ["--bootstrap-server", "nowhere:1"]
PART = ["--topic", "t", "--partition", "0"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list"], "argument --bootstrap-server is required"),
        ([*AT, "find-hanging"], "The `find-hanging` command requires either --topic or --broker-id"),
        (
            [*AT, "find-hanging", "--partition", "0", "--broker-id", "1"],
            "The --partition argument requires --topic to be provided",
        ),
        ([*AT, "abort", *PART], "The transaction to abort must be identified either with --start-offset"),
        ([*AT, "abort", *PART, "--producer-id", "1"], "Missing required argument --producer-epoch"),
        (
            [*AT, "abort", *PART, "--producer-id", "1", "--producer-epoch", "0"],
            "Missing required argument --coordinator-epoch",
        ),
    ],
)
def test_mistakes(arguments: list[str], says: str) -> None:
    with pytest.raises(ToolError) as error:
        run(arguments)
    assert str(error.value).startswith(says)
