"""cordoned.log.dirs: log directories that get no new replicas (KIP-1066)."""

from __future__ import annotations

from collections.abc import Collection

CORDONED = "cordoned.log.dirs"
EVERY = "*"


def cordoned_names(value: str) -> list[str]:
    """Of a configured value."""
    return [name.strip() for name in value.split(",") if name.strip()]


def cordon_refusal(cordoned: Collection[str], log_dirs: Collection[str]) -> str | None:
    """What Kafka says if these are not some of the log directories, or all by `*`; None if they are."""
    if EVERY in cordoned:
        alone = len(cordoned) == 1
        return None if alone else f"When {CORDONED} is set to *, it must not contain other values"
    missing = [name for name in cordoned if name not in log_dirs]
    if not missing:
        return None
    return f"All entries in {CORDONED} must be present in log.dirs or log.dir. Missing entries : {', '.join(missing)}"
