"""Command lines in Kafka's manner: its flags, its wording, and one clear line where something is wrong.

Kafka's tools parse with jopt-simple; `ToolParser` is argparse that speaks the same: long options may be abbreviated,
`--name=value` and `--name value` are equal, and a mistake is answered with Kafka's sentence (without the page of
usage that Kafka appends) and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import IO, Any, NoReturn

# What `--version` of a tool of Kafka prints starts with the release whose protocol and tools it belongs to.
KAFKA_VERSION = "4.3.1"


class ToolError(Exception):
    """What the user is told, in one line; the tool ends with exit code 1.

    `to_stdout` is for the failures that Kafka's tools print on standard output, where scripts look for them.
    """

    def __init__(self, message: str, *, to_stdout: bool = False) -> None:
        super().__init__(message)
        self.to_stdout = to_stdout


class Terminated(BaseException):
    """SIGTERM arrived."""


class UsageError(ToolError):
    """The command line itself is wrong."""


def program_name(default: str) -> str:
    """The name the user typed: `kafka-topics`, `kafka-topics.sh` or `odradek topics`."""
    typed = os.path.basename(sys.argv[0]) if sys.argv else ""
    return typed if typed.startswith("kafka-") else default


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="Display Kafka version."
        )

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(version_text())
        parser.exit(0)


class _Removed(argparse.Action):
    """An option of older releases that has no meaning left; says what to write instead."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None
    ) -> NoReturn:
        parser.error(f"{(option or '').lstrip('-')} is not a recognized option: {self.const}")


def version_text() -> str:
    """`4.3.1 (Odradek 0.1.0)`: the Kafka release whose tools these are, and ours."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{KAFKA_VERSION} (Odradek {version('odradek')})"
    except PackageNotFoundError:
        return f"{KAFKA_VERSION} (Odradek, not installed)"


class _WithExamples(argparse.HelpFormatter):
    """Paragraphs with indented lines stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if "\n  " in part else super(_WithExamples, self)._fill_text(part, width, indent)
            for part in text.strip("\n").split("\n\n")
        )


class ToolParser(argparse.ArgumentParser):
    """argparse with Kafka's sentences. Sub-parsers made by `add_subparsers` are of this class too."""

    def __init__(self, *args: Any, examples: str | None = None, **kwargs: Any) -> None:
        """`examples` stand below the options."""
        style, column = (_WithExamples, 30) if examples else (argparse.HelpFormatter, 36)
        kwargs.setdefault(
            "formatter_class", lambda prog: style(prog, max_help_position=column, width=_width())
        )
        kwargs.setdefault("epilog", examples)
        super().__init__(*args, **kwargs)

    def add_version(self) -> None:
        """`--version`, which every tool has."""
        self.add_argument("--version", action=_Version)

    def add_removed(self, option: str, instead: str) -> None:
        """An option that old guides name and that only earns an explanation."""
        self.add_argument(option, action=_Removed, nargs="?", const=instead, help=argparse.SUPPRESS)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse; no arguments at all print the help and fail, as Kafka's tools do."""
        if not argv:
            self.print_help(sys.stderr)
            raise SystemExit(1)
        options, unknown = self.parse_known_args(argv)
        if unknown:
            self.error("unrecognized arguments: " + " ".join(unknown))
        return options

    def error(self, message: str) -> NoReturn:
        text = _in_kafkas_words(message)
        raise UsageError(text if text.endswith(")") else f"{text} (see {self.prog} --help)")

    def require(self, options: argparse.Namespace, *names: str) -> None:
        """Kafka's check that an option is there."""
        for name in names:
            if not given(options, name):
                self.error(f'Missing required argument "[{name}]"')

    def forbid(self, options: argparse.Namespace, used: str, *others: str) -> None:
        """Kafka's check that two options do not meet."""
        if not given(options, used):
            return
        for other in others:
            if given(options, other):
                self.error(f'Option "[{used}]" can\'t be used with option "[{other}]"')

    def print_help(self, file: IO[str] | None = None) -> None:  # type: ignore[override]
        super().print_help(file or sys.stdout)


def given(options: argparse.Namespace, name: str) -> bool:
    """Whether the option `name` (as typed, without dashes) was on the command line."""
    value = getattr(options, name.replace("-", "_").replace(".", "_"))
    return value is not None and value is not False and value != []


def add_bootstrap(
    parser: ToolParser, *, config_help: str = "Property file containing configs to be passed to Admin Client."
) -> None:
    """`--bootstrap-server` (also by its old name `--broker-list`) and `--command-config`."""
    parser.add_argument(
        "--bootstrap-server", metavar="HOST:PORT", help="REQUIRED: The server(s) to connect to."
    )
    parser.add_argument("--broker-list", dest="bootstrap_server", help=argparse.SUPPRESS)
    parser.add_argument("--command-config", metavar="FILE", help=config_help)
    parser.add_removed("--zookeeper", "there is no ZooKeeper any more; use --bootstrap-server localhost:9092")


def check_topic_name(name: str) -> None:
    """ToolError for a name that no topic can have; the client library would end in a stack trace."""
    from odradek.controller.topic_names import topic_name_error

    error = topic_name_error(name)
    if error is not None:
        raise ToolError(error)


def key_values(pairs: Sequence[str]) -> dict[str, str]:
    """`["k=v", "only"]` as `{"k": "v", "only": ""}`; a value may contain equals signs."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def warn(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


def run_tool(body: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
    """Run a tool's body and turn each way it ends into an exit code: 1 for errors, 130 for Ctrl-C, 143 for SIGTERM."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = body(arguments)
        sys.stdout.flush()
        return code
    except ToolError as error:
        print(error, file=sys.stdout if error.to_stdout else sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): that is its right. Nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def end_cleanly_on_sigterm() -> None:
    """Make SIGTERM unwind the stack, so that what is pending is delivered and members leave their groups."""

    def handler(*_: object) -> NoReturn:
        raise Terminated

    signal.signal(signal.SIGTERM, handler)


def _width() -> int:
    from shutil import get_terminal_size

    return min(get_terminal_size((100, 24)).columns - 2, 118)


# Sentences of argparse, in Kafka's words.
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"unrecognized arguments: -*([^\s=]+).*"), r"\1 is not a recognized option"),
    (
        re.compile(r"argument -*([^\s/:]+)[^:]*: expected (?:one|at least one) argument"),
        r"Option \1 requires an argument",
    ),
    (
        re.compile(r"argument -*([^\s/:]+)[^:]*: invalid \w+ value: '(.*)'"),
        r"Cannot parse argument '\2' of option \1",
    ),
    (re.compile(r"one of the arguments -*([^\s/]+)\S* is required"), r'Missing required argument "[\1]"'),
    (
        re.compile(r"ambiguous option: -*([^\s=]+).* could match (.*)"),
        r"\1 is not a unique abbreviation: it could be \2",
    ),
)


def _in_kafkas_words(message: str) -> str:
    for pattern, words in _WORDS:
        if pattern.match(message):
            return pattern.sub(words, message)
    return message
