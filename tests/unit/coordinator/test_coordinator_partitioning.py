"""Java's string hash and length, with the numbers that Java gives."""

from __future__ import annotations

import pytest

from odradek.coordinator.partitioning import java_string_hash, partition_for, utf16_length


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("my-group", -1906497762),
        ("polygenelubricants", -2147483648),
        ("größe", 98762257),
        ("日本", 835047),
        ("😀", 1772899),
        ("console-consumer-12345", 158455506),
        ("ab" * 128, -403234688),
        ("ab" * 128 + "c", 384626659),
    ],
)
def test_the_hash_is_javas(text: str, expected: int) -> None:
    assert java_string_hash(text) == expected


def test_the_partition_is_the_absolute_hash_modulo_the_count() -> None:
    assert partition_for("hello", 50) == 99162322 % 50
    assert partition_for("my-group", 50) == 12


def test_the_one_hash_without_an_absolute_goes_to_partition_zero() -> None:
    assert partition_for("polygenelubricants", 50) == 0


def test_characters_beyond_the_basic_plane_count_twice() -> None:
    assert utf16_length("a😀b") == 4
    assert utf16_length("größe") == 5
