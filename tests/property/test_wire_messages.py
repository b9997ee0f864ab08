"""Every generated message at every version: round trips, unknown tags, truncation, noise."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.wire.errors import MalformedMessage
from odradek.wire.messages._schema import MESSAGES
from support.examples import examples
from support.message_samples import Sampler, all_versions, message_class

ALL = all_versions()
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(0, 3)


@examples(40)
@given(seed=seeds, size=sizes)
def test_every_message_at_every_version_survives_a_round_trip(seed: int, size: int) -> None:
    sampler = Sampler(Random(seed), size=size)
    for name, version in ALL:
        message = sampler.message(name, version)
        data = message.encode(version)
        again, end = type(message).read(data, 0, version)
        assert again == message, (name, version)
        assert end == len(data), (name, version)
        assert again.encode(version) == data, (name, version)


@examples(40)
@given(seed=seeds, before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_a_message_is_read_from_the_middle_of_any_kind_of_buffer(
    seed: int, before: bytes, after: bytes
) -> None:
    rng = Random(seed)
    for name, version in rng.sample(ALL, 200):
        message = Sampler(rng).message(name, version)
        out = bytearray(before)
        message.write(out, version)
        whole = bytes(out) + after
        for buffer in (whole, bytearray(whole), memoryview(whole), memoryview(bytearray(whole))):
            again, end = type(message).read(buffer, len(before), version)
            assert (again, end) == (message, len(out)), (name, version)


@examples(15)
@given(seed=seeds)
def test_a_message_cut_at_any_byte_is_malformed(seed: int) -> None:
    sampler = Sampler(Random(seed), size=1)
    for name, version in ALL:
        message = sampler.message(name, version)
        data = message.encode(version)
        cls = type(message)
        for end in range(len(data)):
            try:
                got = cls.decode(data[:end], version)
            except MalformedMessage:
                continue
            pytest.fail(f"{name} v{version}: {end} of {len(data)} bytes decode to {got}")


@examples(80)
@given(seed=seeds)
def test_damaged_messages_are_malformed_or_something_that_can_be_written_again(seed: int) -> None:
    """Noise over a valid message: no other exception, and what decodes is a message in its own right."""
    rng = Random(seed)
    sampler = Sampler(rng, size=2)
    for name, version in rng.sample(ALL, 300):
        data = bytearray(sampler.message(name, version).encode(version))
        for _ in range(rng.randint(1, 4)):
            noise = rng.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00", b"\xff", rng.randbytes(3))
            )
            at = rng.randrange(len(data) + 1)
            data[at : at + len(noise)] = noise
        cls = message_class(name)
        try:
            message = cls.decode(data, version)
        except MalformedMessage:
            continue
        assert cls.decode(message.encode(version), version).encode(version) == message.encode(version)


@examples(40)
@given(seed=seeds, data=st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_malformed(seed: int, data: bytes) -> None:
    for name, version in Random(seed).sample(ALL, 300):
        try:
            message_class(name).decode(data, version)
        except MalformedMessage:
            continue


@examples(40)
@given(seed=seeds)
def test_unknown_tagged_fields_are_kept_and_written_in_order(seed: int) -> None:
    rng = Random(seed)
    sampler = Sampler(rng, size=1, unknown_tags=False)
    for name, version in ALL:
        if version < MESSAGES[name].flexible_from:
            continue
        message = sampler.message(name, version)
        plain = message.encode(version)
        tags = sampler.tags()
        message.unknown_tagged_fields = dict(sorted(tags.items(), reverse=True))
        data = message.encode(version)
        assert len(data) > len(plain)
        again = message_class(name).decode(data, version)
        assert again.unknown_tagged_fields == tags, (name, version)  # type: ignore[attr-defined]
        assert again.encode(version) == data
