"""The secret between nodes, from a key or from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from odradek.broker.config import BrokerConfig, StartupError
from odradek.broker.config_builder import build_config, settings_of, zero_config
from odradek.broker.internal_secret import FILE_KEY, KEY, internal_secret

SECRET = "sixteen or more."


def config(**settings: str) -> BrokerConfig:
    keys = {key.replace("_", "."): value for key, value in settings.items()}
    return build_config(zero_config(), settings_of(keys, "test"))


def test_without_one_nothing_is_proved() -> None:
    assert internal_secret(config()) == b""


def test_from_the_key_or_from_a_file_it_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert internal_secret(config(odradek_internal_secret=SECRET)) == SECRET.encode()
    assert internal_secret(config(odradek_internal_secret_file=str(file))) == SECRET.encode()


def test_both_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=f"only one of {KEY} and {FILE_KEY}"):
        internal_secret(config(odradek_internal_secret=SECRET, odradek_internal_secret_file=str(tmp_path)))


@pytest.mark.parametrize("secret", ["short", " " * 40, "x" * 4097])
def test_one_that_is_too_short_or_too_long_is_refused(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    with pytest.raises(StartupError, match="a secret has 16 to 4096 bytes"):
        internal_secret(config(odradek_internal_secret_file=str(file)))


def test_an_empty_file_is_no_secret_and_not_none(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch()
    with pytest.raises(StartupError, match="not 0"):
        internal_secret(config(odradek_internal_secret_file=str(file)))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"cannot read .*No such file"):
        internal_secret(config(odradek_internal_secret_file=str(tmp_path / "nowhere")))
