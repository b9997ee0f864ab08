"""What the nodes of a cluster prove to each other that they know (`odradek.internal.secret`), or nothing."""

from __future__ import annotations

from odradek.broker.config import BrokerConfig, StartupError

KEY = "odradek.internal.secret"
FILE_KEY = "odradek.internal.secret.file"
BYTES_MIN = 16
"""A shorter one can be found out by who has seen one proof."""
BYTES_MAX = 4096


def internal_secret(config: BrokerConfig) -> bytes:
    """Empty without one. White space at its ends does not count: files end with a line feed. StartupError."""
    text, path = config.static.get(KEY, ""), config.static.get(FILE_KEY, "").strip()
    if path and text:
        raise StartupError(f"only one of {KEY} and {FILE_KEY} should be set")
    secret, where = (_read(path), path) if path else (text.encode(), KEY)
    secret = secret.strip()
    if (path or text) and not BYTES_MIN <= len(secret) <= BYTES_MAX:
        raise StartupError(f"{where}: a secret has {BYTES_MIN} to {BYTES_MAX} bytes, not {len(secret)}")
    return secret


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(BYTES_MAX + 64)
    except OSError as error:
        raise StartupError(f"{FILE_KEY}: cannot read {path}: {error.strerror}") from error
