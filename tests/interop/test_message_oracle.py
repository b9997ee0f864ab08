"""The message codec against Kafka's Java classes, byte for byte; the generator against what is committed."""

import struct
from pathlib import Path
from random import Random

import pytest

from generator.__main__ import ARTIFACTS, generate
from interop import jvm
from odradek.wire.messages._schema import MESSAGES
from odradek.wire.primitives import Message
from support.message_samples import Sampler, all_versions, message_class

COORDINATES = jvm.kafka(*(f"kafka-{artifact}" for artifact in ARTIFACTS), "kafka-server-common")
MESSAGES_DIR = Path(__file__).parents[2] / "proto" / "odradek" / "wire" / "messages"
SAMPLES_PER_VERSION = 25
SEED = 2026

Question = tuple[str, int, bytes | None]
Answer = tuple[int, bytes]


def ask(classpath: str, questions: list[Question]) -> list[Answer]:
    """One run of the oracle for all of them."""
    frames = bytearray()
    for name, version, data in questions:
        java_class = MESSAGES[name].java_class.encode()
        frames += struct.pack(">H", len(java_class)) + java_class
        frames += struct.pack(">hi", version, -1 if data is None else len(data)) + (data or b"")
    out = jvm.run_java("CodecOracle", classpath, bytes(frames))
    answers = []
    pos = 0
    while pos < len(out):
        status, length = struct.unpack_from(">bi", out, pos)
        answers.append((status, out[pos + 5 : pos + 5 + length]))
        pos += 5 + length
    assert len(answers) == len(questions)
    return answers


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Class path of the compiled oracle."""
    try:
        jvm.tool("java")
        path = jvm.classpath(*COORDINATES)
        source = Path(__file__).parent / "java" / "CodecOracle.java"
        return jvm.compile_java(source, path, tmp_path_factory.mktemp("oracle"))
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))


def differences(questions: list[Question], answers: list[Answer], expected: list[bytes]) -> list[str]:
    return [
        f"{name} v{version}: ours {ours.hex()}, Java {answer[1].decode() if answer[0] else answer[1].hex()}"
        for (name, version, _), answer, ours in zip(questions, answers, expected, strict=True)
        if answer != (0, ours)
    ]


def test_java_reads_what_we_write_and_writes_the_same_bytes(oracle: str) -> None:
    sampler = Sampler(Random(SEED))
    questions: list[Question] = []
    expected: list[bytes] = []
    for name, version in all_versions():
        for _ in range(SAMPLES_PER_VERSION):
            data = sampler.message(name, version).encode(version)
            questions.append((name, version, data))
            expected.append(data)
    assert differences(questions, ask(oracle, questions), expected)[:5] == []


def refusal(message: Message, version: int) -> bytes | None:
    """Our bytes of a message, or None where we refuse it."""
    try:
        return message.encode(version)
    except ValueError:
        return None


def test_default_instances_are_encoded_like_javas(oracle: str) -> None:
    questions: list[Question] = [(name, version, None) for name, version in all_versions()]
    for (name, version, _), (status, answer) in zip(questions, ask(oracle, questions), strict=True):
        ours = refusal(message_class(name)(), version)
        assert ours == (None if status else answer), f"{name} v{version}: {answer!r}"


def test_the_committed_messages_are_what_the_generator_writes() -> None:
    try:
        paths = jvm.jars(*jvm.kafka(*(f"kafka-{artifact}" for artifact in ARTIFACTS)), transitive=False)
    except jvm.Unavailable as missing:
        pytest.skip(str(missing))
    files = generate(str(path) for path in paths)
    committed = {path.name: path.read_text() for path in MESSAGES_DIR.glob("*.py")}
    assert committed.keys() == files.keys()
    assert [name for name, text in files.items() if committed[name] != text] == []
