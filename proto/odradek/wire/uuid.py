"""Kafka's UUIDs: 16 raw bytes in memory and on the wire, 22 characters of URL-safe base64 in text (KIP-516).

Topic ids, directory ids and cluster ids are all of this form.
"""

from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from random import Random

UUID_SIZE = 16
ZERO_UUID = bytes(UUID_SIZE)
"""No id at all: an unnamed topic, an unassigned directory."""

_TEXT_LENGTH_MAX = 24


def uuid_to_string(uuid: bytes) -> str:
    """Return the text form: 22 characters, no padding."""
    assert len(uuid) == UUID_SIZE, f"a uuid has {UUID_SIZE} bytes, not {len(uuid)}"
    return urlsafe_b64encode(uuid)[:22].decode("ascii")


def uuid_from_string(text: str) -> bytes:
    """Read the text form, padded or not. ValueError when it is not one of 16 bytes."""
    if len(text) > _TEXT_LENGTH_MAX:
        raise ValueError(f"'{text[:_TEXT_LENGTH_MAX]}…' is too long for a base64 UUID")
    if "+" in text or "/" in text:  # the standard alphabet, which the decoder would take as well
        raise ValueError(f"'{text}' is not a URL-safe base64 UUID")
    try:
        raw = b64decode(text.rstrip("=").encode("ascii") + b"==", altchars=b"-_", validate=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise ValueError(f"'{text}' is not a base64 UUID") from error
    if len(raw) != UUID_SIZE:
        raise ValueError(f"'{text}' has {len(raw)} bytes, a UUID has {UUID_SIZE}")
    return raw


def random_uuid(rng: Random) -> bytes:
    """Draw a version 4 UUID whose text never begins with a dash: a tool would take it for an option."""
    while True:
        raw = bytearray(rng.randbytes(UUID_SIZE))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        if raw[0] >> 2 != 62:  # 62 is "-" in URL-safe base64
            return bytes(raw)
