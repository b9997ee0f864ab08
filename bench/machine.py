"""What the numbers were measured on: hardware and versions, never names of users, hosts or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("uvloop", "crc32c", "confluent-kafka")


def describe(data_root: Path) -> dict[str, str]:
    """Label → value, in the order in which a report shows them."""
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{memory_gb():.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}{', virtual machine' if is_virtual() else ''}",
        "file system of the data": file_system(data_root),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Java": java_version(),
        "Apache Kafka": kafka_version(),
        "Odradek": revision(),
        "packages": ", ".join(f"{name} {version_of(name)}" for name in PACKAGES),
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def is_virtual() -> bool:
    return " hypervisor" in Path("/proc/cpuinfo").read_text()


def memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`: the longest mount point that is a prefix."""
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, found
    return kind


def java_version() -> str:
    from bench.servers import java, jvm

    try:
        done = subprocess.run([java(), "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (jvm().Unavailable, OSError):
        return "not installed"
    found = re.search(r'version "([^"]+)"', done.stderr)
    return found.group(1) if found else "?"


def kafka_version() -> str:
    from bench.servers import jvm

    return str(jvm().KAFKA_VERSION)


def revision() -> str:
    """Version and commit; `+` for changes that are not committed."""
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=root, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        commit = done.stdout.strip()
    except OSError:
        commit = ""
    return f"{version_of('odradek')} {commit}".strip()


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "from source" if package == "odradek" else "not installed"
