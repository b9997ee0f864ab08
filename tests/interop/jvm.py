"""A JVM and Kafka's published jars for tests that ask Java.

    try:
        classpath = jvm.classpath("org.apache.kafka:kafka-clients:4.3.1")
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))

Jars are fetched once with Maven into `~/.cache/odradek-test`, or into the folder `ODRADEK_TEST_CACHE`.
`ODRADEK_KAFKA_LIBS` may name a folder that already holds the jars: then Maven is not needed.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.3.1"
LOGGER = "org.slf4j:slf4j-simple:1.7.36"
"""What Kafka's clients and server log with."""
FETCH_TIMEOUT_S = 200


_unreachable: list[str] = []
"""Why jars could not be fetched: what is not to be had is not asked for again by every test."""


class Unavailable(RuntimeError):  # noqa: N818 - a reason to skip, not a failure
    """What a test needs is not on this machine; the text says what, and is the reason to skip."""


def tool(name: str) -> str:
    """Path of `java`, `javac` or `mvn`."""
    home = os.environ.get("JAVA_HOME")
    candidate = Path(home or "/", "bin", name)
    if home and candidate.is_file():
        return str(candidate)
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return found


def cache_dir() -> Path:
    given = os.environ.get("ODRADEK_TEST_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "odradek-test"


def kafka(*artifacts: str) -> tuple[str, ...]:
    """Coordinates of Kafka's artifacts in the version we follow: `kafka("kafka-clients", "kafka-raft")`."""
    return tuple(f"org.apache.kafka:{artifact}:{KAFKA_VERSION}" for artifact in artifacts)


def server_jars() -> list[Path]:
    """Kafka's server and tools, about 130 MB."""
    return jars(*kafka("kafka_2.13", "kafka-tools"), LOGGER)


def jars(*coordinates: str, transitive: bool = True) -> list[Path]:
    """The jars of `group:artifact:version` coordinates and of what they depend on, in their own folder."""
    given = os.environ.get("ODRADEK_KAFKA_LIBS")
    if given and all((Path(given) / jar_name(one)).is_file() for one in coordinates):
        if transitive:
            return sorted(Path(given).glob("*.jar"))
        return [Path(given) / jar_name(one) for one in coordinates]
    key = hashlib.sha256(repr((sorted(coordinates), transitive)).encode()).hexdigest()[:16]
    folder = cache_dir() / f"jars-{key}"
    if not folder.is_dir():
        if _unreachable:
            raise Unavailable(_unreachable[0])
        try:
            fetch(coordinates, folder, transitive)
        except Unavailable as missing:
            _unreachable.append(str(missing))
            raise
    return sorted(folder.glob("*.jar"))


def classpath(*coordinates: str, transitive: bool = True) -> str:
    """Like `jars`, as one class path."""
    return os.pathsep.join(str(jar) for jar in jars(*coordinates, transitive=transitive))


def jar_name(coordinates: str) -> str:
    _, artifact, version = coordinates.split(":")
    return f"{artifact}-{version}.jar"


def fetch(coordinates: tuple[str, ...], folder: Path, transitive: bool) -> None:
    """One Maven run; the folder appears only when it is complete."""
    maven = tool("mvn")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(pom_text(coordinates))
        target = Path(scratch) / "jars"
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(pom),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={target}",
        ]
        if not transitive:
            command.append("-DexcludeTransitive=true")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"Maven did not fetch the jars within {FETCH_TIMEOUT_S} s") from None
        if done.returncode != 0:
            raise Unavailable(
                f"Maven cannot fetch {', '.join(coordinates)}: {(done.stdout + done.stderr)[-500:]}"
            )
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another test process was first
                raise


def pom_text(coordinates: tuple[str, ...]) -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in (one.split(":") for one in coordinates)
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>odradek</groupId><artifactId>test-jars</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )


def compile_java(source: Path, path: str, target: Path) -> str:
    """Compiles one source file into `target`; the class path to run it with."""
    command = [tool("javac"), "-nowarn", "-proc:none", "-cp", path, "-d", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{source.name} does not compile:\n{done.stderr}")
    return f"{target}{os.pathsep}{path}"


def run_java(main_class: str, path: str, stdin: bytes, *, timeout_s: float = 200) -> bytes:
    """Runs a small program to its end; what it wrote to its standard output."""
    command = [
        tool("java"),
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        path,
        main_class,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{main_class} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout
