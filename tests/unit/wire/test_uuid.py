"""UUIDs as Kafka writes them."""

from random import Random

import pytest

from odradek.wire.uuid import ZERO_UUID, random_uuid, uuid_from_string, uuid_to_string


class StackedRandom(Random):
    """Hands out the given draws, one after the other."""

    def __init__(self, *draws: bytes) -> None:
        super().__init__(0)
        self.draws = list(draws)

    def randbytes(self, n: int) -> bytes:
        return self.draws.pop(0)


def test_text_is_the_one_of_kafka() -> None:
    # org.apache.kafka.common.Uuid.toString() of the same sixteen bytes.
    assert uuid_to_string(ZERO_UUID) == "AAAAAAAAAAAAAAAAAAAAAA"
    assert uuid_to_string(bytes(15) + b"\x01") == "AAAAAAAAAAAAAAAAAAAAAQ"
    assert uuid_to_string(bytes(range(240, 256))) == "8PHy8_T19vf4-fr7_P3-_w"


@pytest.mark.parametrize("text", ["8PHy8_T19vf4-fr7_P3-_w", "8PHy8_T19vf4-fr7_P3-_w=="])
def test_text_is_read_with_and_without_padding(text: str) -> None:
    assert uuid_from_string(text) == bytes(range(240, 256))


@pytest.mark.parametrize(
    "text",
    ["", "AAAA", "A" * 21, "A" * 23, "A" * 24, "A" * 25, "8PHy8/T19vf4+fr7/P3+/w", "ä" * 22, "A A" * 7],
)
def test_text_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"UUID"):
        uuid_from_string(text)


def test_random_uuids_are_version_4_and_survive_their_text() -> None:
    rng = Random(7)
    for _ in range(500):
        uuid = random_uuid(rng)
        assert uuid[6] >> 4 == 4
        assert uuid[8] >> 6 == 2
        assert not uuid_to_string(uuid).startswith("-")
        assert uuid_from_string(uuid_to_string(uuid)) == uuid


def test_a_draw_whose_text_would_begin_with_a_dash_is_drawn_again() -> None:
    uuid = random_uuid(StackedRandom(b"\xfb" + bytes(15), b"\x01" + bytes(15)))
    assert uuid[0] == 1


def test_random_uuids_are_a_function_of_the_seed() -> None:
    assert random_uuid(Random(3)) == random_uuid(Random(3)) != random_uuid(Random(4))
