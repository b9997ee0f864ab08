"""Command lines: Kafka's sentences for mistakes, exit codes, names."""

from __future__ import annotations

from importlib import import_module

import pytest

from odradek.cli import main as odradek
from odradek.cli.options import Terminated, ToolError, ToolParser, UsageError, key_values, run_tool


def parser() -> ToolParser:
    made = ToolParser(prog="kafka-things")
    made.add_argument("--topic")
    made.add_argument("--partitions", type=int)
    made.add_argument("--partition-size", type=int)
    made.add_argument("--list", action="store_true")
    made.add_argument("--create", action="store_true")
    return made


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--foo"], "foo is not a recognized option"),
        (["--foo=7", "--list"], "foo is not a recognized option"),
        (["--topic"], "Option topic requires an argument"),
        (["--partitions", "x"], "Cannot parse argument 'x' of option partitions"),
        (["--part", "1"], "part is not a unique abbreviation: it could be --partitions, --partition-size"),
    ],
)
def test_mistakes_are_answered_in_kafkas_words(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        parser().parse(argv)
    assert str(error.value) == f"{said} (see kafka-things --help)"


def test_long_options_may_be_abbreviated_and_joined() -> None:
    options = parser().parse(["--top=orders", "--li"])
    assert (options.topic, options.list) == ("orders", True)


def test_negative_numbers_are_values() -> None:
    assert parser().parse(["--partitions", "-1"]).partitions == -1


def test_options_that_exclude_each_other() -> None:
    made = parser()
    options = made.parse(["--list", "--topic", "orders"])
    with pytest.raises(UsageError, match=r'Option "\[topic\]" can\'t be used with option "\[list\]"'):
        made.forbid(options, "topic", "create", "list")
    made.forbid(options, "create", "list")


def test_required_options() -> None:
    made = parser()
    with pytest.raises(UsageError, match=r'Missing required argument "\[topic\]"'):
        made.require(made.parse(["--list"]), "topic")


def test_no_arguments_at_all_print_the_help_and_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse([])
    assert ended.value.code == 1
    assert "--partitions" in capsys.readouterr().err


def test_removed_options_say_what_to_write_instead() -> None:
    made = parser()
    made.add_removed("--zookeeper", "use --bootstrap-server")
    with pytest.raises(UsageError, match="zookeeper is not a recognized option: use --bootstrap-server"):
        made.parse(["--zookeeper", "localhost:2181"])


def test_key_values() -> None:
    assert key_values(["a=1", "b=x=y", "c"]) == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize(
    ("ending", "code"),
    [(ToolError("no"), 1), (KeyboardInterrupt(), 130), (Terminated(), 143)],
)
def test_every_ending_has_its_exit_code(ending: BaseException, code: int) -> None:
    def body(_: list[str]) -> int:
        raise ending

    assert run_tool(body, []) == code


def test_an_error_goes_where_kafka_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    def body(argv: list[str]) -> int:
        raise ToolError("gone wrong", to_stdout=bool(argv))

    run_tool(body, ["x"])
    assert capsys.readouterr() == ("gone wrong\n", "")
    run_tool(body, [])
    assert capsys.readouterr() == ("", "gone wrong\n")


# --- odradek ---


def test_the_dispatcher_knows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert odradek.main(["--help"]) == 0
    said = capsys.readouterr().out
    for name in odradek.COMMANDS:
        assert f"  {name} " in said


def test_the_dispatcher_suggests_what_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert odradek.main(["topix", "--list"]) == 1
    assert (
        capsys.readouterr().err
        == "odradek: there is no command 'topix'. Did you mean 'topics'? See odradek --help\n"
    )


def test_kafkas_names_are_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert odradek.main(["kafka-topics.sh", "--list"]) == 1
    assert "--bootstrap-server must be specified" in capsys.readouterr().err


def test_no_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert odradek.main([]) == 1
    assert capsys.readouterr().err.startswith("usage: odradek <command>")


OURS = {"start", "server", "simulate", "chaos", "container", "pod", "health"}
"""Commands that Kafka has no tool for."""


@pytest.mark.parametrize("name", sorted(OURS))
def test_commands_of_our_own_have_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = odradek.main([name, "--help"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 0
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(odradek.COMMANDS) - OURS))
def test_every_tool_has_help_and_a_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the entry point that `kafka-…` calls."""
    tool = import_module(f"odradek.cli.{odradek.module_of(name)}")
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            tool.main([option])
        assert not ended.value.code
        assert capsys.readouterr().out.strip()
