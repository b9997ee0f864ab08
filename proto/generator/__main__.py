"""Writes `odradek/wire/messages` from Kafka's jars.

    cd proto && python -m generator JAR... [--out FOLDER]

The jars that hold definitions: kafka-clients, kafka-group-coordinator, kafka-transaction-coordinator,
kafka-share-coordinator, kafka-raft, kafka-storage. With Maven they come from Maven Central:

    cd proto && python -m generator --maven 4.3.1
"""

import argparse
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from generator.modules import module_text
from generator.schema import MessageSpec, load_jar
from generator.tables import registry_text, schema_text

ARTIFACTS = (
    "clients",
    "group-coordinator",
    "transaction-coordinator",
    "share-coordinator",
    "raft",
    "storage",
)
PACKAGE_DOC = '"""Kafka\'s messages, generated: one module per API or record type. See proto/README.md."""\n'


def download(version: str, folder: str) -> list[str]:
    """Fetches the jars with Maven into `folder`."""
    for artifact in ARTIFACTS:
        coordinates = f"org.apache.kafka:kafka-{artifact}:{version}"
        command = ["mvn", "-q", "dependency:copy", f"-Dartifact={coordinates}", f"-DoutputDirectory={folder}"]
        subprocess.run(command, check=True)
    return [f"{folder}/kafka-{artifact}-{version}.jar" for artifact in ARTIFACTS]


def generate(jars: Iterable[str]) -> dict[str, str]:
    """File name to text, for every file of the package."""
    messages: dict[str, MessageSpec] = {}
    for jar in jars:
        for message in load_jar(jar):
            if message.name in messages:
                raise ValueError(f"{message.name} is defined twice")
            messages[message.name] = message
    ordered = [messages[name] for name in sorted(messages)]
    modules: dict[str, list[MessageSpec]] = {}
    for message in ordered:
        modules.setdefault(message.module, []).append(message)
    files = {f"{name}.py": module_text(users) for name, users in modules.items()}
    files["_registry.py"] = registry_text(ordered)
    files["_schema.py"] = schema_text(ordered)
    files["__init__.py"] = PACKAGE_DOC
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate odradek.wire.messages from Kafka's jars.")
    parser.add_argument("jars", nargs="*", help="paths of jars with message definitions")
    parser.add_argument("--maven", metavar="VERSION", help="fetch the jars of this Kafka version with Maven")
    parser.add_argument("--out", default="odradek/wire/messages", help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jars = options.jars + (download(options.maven, folder) if options.maven else [])
        if not jars:
            parser.error("name the jars, or use --maven")
        files = generate(jars)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.py"):
        if stale.name not in files:
            stale.unlink()
    for name, text in files.items():
        (out / name).write_text(text)
    print(f"{len(files)} files, {sum(text.count(chr(10)) for text in files.values())} lines in {out}")


if __name__ == "__main__":
    main()
