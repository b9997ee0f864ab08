"""Tables, plans and times of kafka-consumer-groups; small parsers of the other tools."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest

from odradek.cli import configs, consumer_groups, delete_records, get_offsets, raft_voters, storage, topics
from odradek.cli.admin import ClusterError, Committed, TopicPartition
from odradek.cli.group_describe import assignment_text, chosen, offset_row
from odradek.cli.group_offsets import parse_datetime, parse_duration, plan
from odradek.cli.options import ToolError, UsageError
from odradek.cli.tables import plain_table

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


class FakeAdmin:
    """A cluster of two topics: where their logs begin and end, what one group committed."""

    def __init__(self, committed: dict[TopicPartition, int] | None = None) -> None:
        self.starts = {A0: 10, A1: 0, B0: 0}
        self.ends = {A0: 50, A1: 5, B0: 0}
        self.leaders = {A0: 1, A1: 1, B0: 1}
        self._committed = committed or {}

    def committed(self, _group: str) -> dict[TopicPartition, Committed]:
        return {part: Committed(offset, None) for part, offset in self._committed.items()}

    def partitions(self, names: Any) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for name in names:
            parts = [part for part in self.leaders if part.topic == name]
            if not parts:
                raise ClusterError(3, None)
            found[name] = [
                {"partition_index": part.partition, "leader_id": self.leaders[part]} for part in parts
            ]
        return found

    def list_offsets(self, parts: Any, timestamp: int) -> tuple[dict[TopicPartition, int], dict[Any, Any]]:
        if timestamp == -1:
            return {part: self.ends[part] for part in parts}, {}
        if timestamp == -2:
            return {part: self.starts[part] for part in parts}, {}
        return {part: (20 if part == A0 else -1) for part in parts}, {}


def planned(admin: FakeAdmin, *argv: str) -> dict[TopicPartition, int]:
    parser = consumer_groups.build_parser()
    options = parser.parse(
        ["--bootstrap-server", "h:1", "--reset-offsets", "--group", "g", "--dry-run", *argv]
    )
    consumer_groups.check(parser, options)
    return plan(admin, "g", options)  # type: ignore[arg-type]


def test_positions() -> None:
    assert planned(FakeAdmin(), "--topic", "a", "--to-earliest") == {A0: 10, A1: 0}
    assert planned(FakeAdmin(), "--topic", "a:0", "--topic", "b", "--to-latest") == {A0: 50, B0: 0}


def test_offsets_outside_the_log_move_to_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(FakeAdmin(), "--topic", "a", "--to-offset", "7") == {A0: 10, A1: 5}
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "WARN New offset (7) is lower than earliest offset for topic partition a-0. Value will be set to 10",
        "WARN New offset (7) is higher than latest offset for topic partition a-1. Value will be set to 5",
    ]


def test_shifting_needs_committed_offsets() -> None:
    admin = FakeAdmin({A0: 30, A1: 3})
    assert planned(admin, "--all-topics", "--shift-by", "-2") == {A0: 28, A1: 1}
    assert planned(admin, "--topic", "a", "--shift-by", "100") == {A0: 50, A1: 5}
    with pytest.raises(
        UsageError, match="Cannot shift offset for partition b-0 since there is no current committed"
    ):
        planned(admin, "--topic", "b", "--shift-by", "1")


def test_to_current_takes_the_end_where_nothing_is_committed() -> None:
    assert planned(FakeAdmin({A0: 30}), "--topic", "a", "--to-current") == {A0: 30, A1: 5}


def test_times_without_a_record_fall_back_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(FakeAdmin(), "--topic", "a", "--by-duration", "PT1H") == {A0: 20, A1: 5}
    assert (
        capsys.readouterr().out
        == "\nWarn: Partition 1 from topic a is empty. Falling back to latest known offset.\n"
    )


def test_a_plan_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.csv"
    file.write_text("a,0,12\nb,0,0\n")
    assert planned(FakeAdmin(), "--from-file", str(file)) == {A0: 12, B0: 0}
    file.write_text("other,a,0,12\n")
    assert planned(FakeAdmin(), "--from-file", str(file)) == {}
    assert "No reset plan for group g found" in capsys.readouterr().out
    file.write_text("a,0,12\na,zero,1\n")
    with pytest.raises(ToolError, match=re.escape(f"{file}, line 2: expected topic,partition,offset")):
        planned(FakeAdmin(), "--from-file", str(file))


def test_partitions_that_do_not_exist_or_have_no_leader() -> None:
    with pytest.raises(ClusterError, match='The partitions "a-7" do not exist'):
        planned(FakeAdmin(), "--topic", "a:7", "--to-latest")
    with pytest.raises(UsageError, match="Invalid partition 'x' specified in topic arg 'a:x'"):
        planned(FakeAdmin(), "--topic", "a:x", "--to-latest")
    leaderless = FakeAdmin()
    leaderless.leaders[A1] = -1
    with pytest.raises(ClusterError, match='The partitions "a-1" have no leader'):
        planned(leaderless, "--topic", "a", "--to-latest")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("PT1H", 3_600_000),
        ("P1DT2H3M4.5S", 93_784_500),
        ("-PT1M", -60_000),
        ("PT-6H", -21_600_000),
        ("pt0.001s", 1),
        ("P7D", 604_800_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert parse_duration(text) == ms


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "P1H", "PT1D", "x", "P1DT"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ToolError, match="Text cannot be parsed to a Duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01.500", 1500),
        ("1970-01-01T01:00:00.000+01:00", 0),
        ("1970-01-01T01:00:00.000+0100", 0),
        ("1970-01-02T00:00:00Z", 86_400_000),
        ("1970-01-01T00:01", 60_000),
    ],
)
def test_datetimes(text: str, ms: int) -> None:
    assert parse_datetime(text) == ms


@pytest.mark.parametrize("text", ["yesterday", "2020-01-01", "2020-13-01T00:00:00.000", "2020-01-01T", "T"])
def test_what_is_no_datetime(text: str) -> None:
    with pytest.raises(ToolError, match=r"java\.text\.ParseException"):
        parse_datetime(text)


def test_lag_is_only_known_where_both_ends_are() -> None:
    committed = {A0: Committed(30, 4)}
    assert offset_row("g", A0, committed, {A0: 50}, ("id", "/host", "client"), False) == [
        *("g", "a", "0", "30", "50", "20", "id", "/host", "client"),
    ]
    assert offset_row("g", A1, committed, {A1: 5}, ("-",) * 3, True)[3:7] == ["-", "-", "5", "-"]
    assert offset_row("g", A0, committed, {}, ("-",) * 3, True)[3:7] == ["4", "30", "-", "-"]


def test_assignments_are_written_topic_by_topic() -> None:
    assert assignment_text([TopicPartition("b", 10), A1, A0, TopicPartition("b", 9)]) == "a:0,1;b:9,10"


def test_filters_of_states_and_types() -> None:
    states = ("Stable", "PreparingRebalance")
    assert chosen("stable, preparing-rebalance", states, "state") == ["Stable", "PreparingRebalance"]
    assert chosen(None, states, "state") == []
    with pytest.raises(
        UsageError, match=r"Invalid state list 'odd'\. Valid states are: Stable, PreparingRebalance"
    ):
        chosen("odd", states, "state")
    with pytest.raises(UsageError, match=r"Invalid types list 'share'\. Valid types are: Classic"):
        chosen("share", ("Classic",), "type")


def test_tables_have_kafkas_shape() -> None:
    table = plain_table(
        ["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"], [["g", "a-long-topic-name", "0", "7"]], [15, 15, 10, 0]
    )
    assert table == (
        "\nGROUP           TOPIC             PARTITION  NEW-OFFSET"
        "\ng               a-long-topic-name 0          7\n"
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--list", "--describe"], "Command must include exactly one action"),
        (["--describe"], r"Option \[describe\] takes one of these options: \[group\], \[all-groups\]"),
        (["--describe", "--group", "g", "--members", "--offsets"], "takes at most one of these options"),
        (["--describe", "--group", "g", "--state", "stable"], r"does not take a value for \[state\]"),
        (["--list", "--members"], r"Option\(s\) \[members\] are unavailable given other options"),
        (["--delete-offsets", "--group", "g"], r"takes the following options: \[group\], \[topic\]"),
        (["--delete", "--group", "g", "--topic", "t"], "does not support topic-specific offset deletion"),
        (["--reset-offsets", "--group", "g", "--topic", "t"], "requires one of the following scenarios"),
        (["--reset-offsets", "--group", "g", "--to-latest"], "One of the reset scopes should be defined"),
        (
            ["--reset-offsets", "--group", "g", "--to-latest", "--to-earliest", "--all-topics"],
            "can't be used with",
        ),
        (["--describe", "--group", "g", "--all-groups"], r'Option "\[group\]" can\'t be used with'),
    ],
)
def test_group_options_that_do_not_go_together(argv: list[str], said: str) -> None:
    parser = consumer_groups.build_parser()
    with pytest.raises(UsageError, match=said):
        consumer_groups.check(parser, parser.parse(["--bootstrap-server", "h:1", *argv]))


# --- topics ---


def test_topic_patterns() -> None:
    pattern = topics.include_pattern(" 'orders|users.*, x' ")
    assert [bool(pattern.fullmatch(name)) for name in ("orders", "users2", "x", "orders2")] == [
        True,
        True,
        True,
        False,
    ]
    with pytest.raises(ToolError, match="is an invalid regex"):
        topics.include_pattern("[")


def test_replica_assignments() -> None:
    assert topics.parse_assignment("1:2, 2:3") == {0: [1, 2], 1: [2, 3]}
    with pytest.raises(ToolError, match="Partition replica lists may not contain duplicate entries: 1"):
        topics.parse_assignment("1:1")
    with pytest.raises(ToolError, match=r"Partition 1 has different replication factor: \[1\]"):
        topics.parse_assignment("1:2,1")
    with pytest.raises(ToolError, match="'one' in the replica assignment is not a list of broker ids"):
        topics.parse_assignment("one")


def test_partition_reports() -> None:
    part = {"replica_nodes": [1, 2, 3], "isr_nodes": [1, 2], "leader_id": 1}
    assert topics.reported("under-replicated-partitions", part, 2, {1})
    assert topics.reported("at-min-isr-partitions", part, 2, {1})
    assert not topics.reported("under-min-isr-partitions", part, 2, {1})
    assert topics.reported("under-min-isr-partitions", part, 3, {1})
    assert not topics.reported("unavailable-partitions", part, 2, {1})
    assert topics.reported("unavailable-partitions", part, 2, {2})
    assert topics.reported("unavailable-partitions", {**part, "leader_id": -1}, 2, {1})


def test_a_partition_without_leader_or_elr() -> None:
    part = {"partition_index": 0, "replica_nodes": [1, 2], "isr_nodes": [], "leader_id": -1}
    part |= {"eligible_leader_replicas": [2], "last_known_elr": None}
    assert topics.partition_line("t", part) == (
        "\tTopic: t\tPartition: 0\tLeader: none\tReplicas: 1,2\tIsr: \tElr: 2\tLastKnownElr: N/A"
    )


# --- configs, offsets, records, storage ---


def test_configs_with_commas() -> None:
    assert configs.parse_configs("a=1, b=[x,y],c=") == {"a": "1", "b": "x,y", "c": ""}
    for text in ("a", "a=1=2", "a=1,,b=2"):
        with pytest.raises(ToolError, match="Invalid entity config"):
            configs.parse_configs(text)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--describe"], "At least one entity type must be specified"),
        (["--describe", "--entity-type", "odd"], "Invalid entity type odd"),
        (
            ["--alter", "--broker", "x", "--add-config", "a=1"],
            "must be a valid integer broker id, but it is: x",
        ),
        (["--alter", "--topic", "t"], "At least one of --add-config, --add-config-file, or --delete-config"),
        (
            ["--alter", "--entity-type", "topics", "--add-config", "a=1"],
            "An entity name must be specified with --alter",
        ),
        (["--describe", "--topic", "t", "--entity-type", "topics"], "should not be used in conjunction"),
        (["--describe", "--add-config", "a=1", "--topic", "t"], "can't be used with option"),
        (["--describe", "--entity-type", "users"], "are not served by this release"),
    ],
)
def test_config_options_that_do_not_go_together(argv: list[str], said: str) -> None:
    parser = configs.build_parser()
    with pytest.raises(ToolError, match=said):
        configs.check(parser, parser.parse(["--bootstrap-server", "h:1", *argv]))


def test_config_entities_in_both_ways_of_writing() -> None:
    parser = configs.build_parser()

    def entity(*argv: str) -> tuple[str, list[str]]:
        return configs.check(parser, parser.parse(["--bootstrap-server", "h:1", "--describe", *argv]))

    assert (
        entity("--topic", "t") == entity("--entity-type", "topics", "--entity-name", "t") == ("topics", ["t"])
    )
    assert (
        entity("--broker-defaults")
        == entity("--entity-type", "brokers", "--entity-default")
        == ("brokers", [""])
    )


def test_rules_of_partitions() -> None:
    wanted = get_offsets.by_rules("a:1,b:2-4,c:-2,:9")
    yes = [("a", 1), ("b", 2), ("b", 3), ("c", 0), ("c", 1), ("z", 9)]
    no = [("a", 0), ("b", 4), ("c", 2), ("z", 1)]
    assert all(wanted(*part) for part in yes)
    assert not any(wanted(*part) for part in no)


def test_positions_by_name_and_number() -> None:
    assert [get_offsets.parse_time(text) for text in ("latest", "-2", "1700", "max-timestamp")] == [
        -1,
        -2,
        1700,
        -3,
    ]
    with pytest.raises(ToolError, match="Malformed time argument soon"):
        get_offsets.parse_time("soon")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "The input string is not a valid JSON"),
        ("{}", "Missing partitions field"),
        ('{"partitions": [], "version": 2}', "Not supported version field value 2"),
        ('{"partitions": [{"topic": "t", "partition": 0}]}', 'needs a "offset" that is a number'),
        ('{"partitions": [{"topic": 5, "partition": 0, "offset": 1}]}', 'needs a "topic" that is text'),
        ('{"partitions": ["t"]}', 'needs a "topic" that is text'),
        (
            json.dumps({"partitions": [{"topic": "t", "partition": 0, "offset": 1}] * 2}),
            "duplicate topic partitions: t-0",
        ),
    ],
)
def test_what_is_wrong_with_a_file_of_offsets(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "offsets.json"
    file.write_text(content)
    with pytest.raises(ToolError, match=said):
        delete_records.read_offsets(str(file))


def test_storage_formats_what_it_then_describes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    file = tmp_path / "server.properties"
    file.write_text(
        f"process.roles=broker,controller\nnode.id=7\nlisteners=PLAINTEXT://:9092\nlog.dirs={one},{two}\n"
    )
    cluster = "4L6g3nShT-eMCtK--X86sw"
    assert storage.main(["format", "-t", cluster, "-c", str(file)]) == 0
    assert f"Formatting metadata directory {one}" in capsys.readouterr().out
    assert storage.main(["info", "-c", str(file)]) == 0
    assert f"cluster.id={cluster}" in capsys.readouterr().out
    assert storage.main(["format", "-t", cluster, "-c", str(file)]) == 1
    assert "is already formatted. Use --ignore-formatted" in capsys.readouterr().err
    assert storage.main(["format", "-t", cluster, "-c", str(file), "-g"]) == 0
    assert storage.main(["format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", str(file), "-g"]) == 1
    assert "Invalid cluster.id in" in capsys.readouterr().err


def test_random_uuids(capsys: pytest.CaptureFixture[str]) -> None:
    assert storage.main(["random-uuid"]) == 0
    assert re.fullmatch(r"[\w-]{22}\n", capsys.readouterr().out)


def test_namespaces_are_what_they_seem() -> None:
    """`given` looks options up by the name that was typed."""
    options = argparse.Namespace(to_offset=0, export=False, group=[])
    assert consumer_groups.given(options, "to-offset")
    assert not consumer_groups.given(options, "export")
    assert not consumer_groups.given(options, "group")


DYNAMIC = (
    "process.roles=broker,controller\nnode.id=7\nlisteners=PLAINTEXT://:9092,CONTROLLER://h:9093\n"
    "controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=h:9093,i:9093\n"
)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ([], "you must specify one of the following: --standalone, --initial-controllers"),
        (["-I", "7h:9093:JEXY6aqzQY-32P5TStzaFg"], "No @ found in dynamic voter string."),
        (["-I", "x@h:9093:JEXY6aqzQY-32P5TStzaFg"], "Failed to parse node id in dynamic voter string."),
        (["-I", "7@h:9093:nonsense"], "Failed to parse directory ID in dynamic voter string."),
        (
            ["-I", "7@h:1:JEXY6aqzQY-32P5TStzaFg,7@i:1:JEXY6aqzQY-32P5TStzaFg"],
            "was specified more than once.",
        ),
    ],
)
def test_storage_is_told_the_first_voters_of_a_dynamic_quorum(
    how: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.properties"
    file.write_text(f"{DYNAMIC}log.dirs={tmp_path / 'data'}\n")
    assert storage.main(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(file), *how]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "data" / "meta.properties").exists()


def test_storage_writes_the_first_voters_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from odradek.raft.metadata_log import MetadataLog
    from odradek.raft.voters import VoterSet
    from odradek.storage.real_disk import RealDisk, ThreadSyncer

    data = tmp_path / "data"
    file = tmp_path / "server.properties"
    file.write_text(f"{DYNAMIC}log.dirs={data}\n")
    first = "7@h:9093:JEXY6aqzQY-32P5TStzaFg,8@i:9093:MvDxzVmcRsaTz33bUuRU6A"
    assert storage.main(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(file), "-I", first]) == 0
    assert "Formatting dynamic metadata voter directory" in capsys.readouterr().out
    assert "directory.id=JEXY6aqzQY-32P5TStzaFg" in (data / "meta.properties").read_text()
    syncer = ThreadSyncer(lambda call: call())
    log = MetadataLog.open(RealDisk(), str(data), VoterSet(), 0, syncer)
    assert log.voters.current.ids == (7, 8)
    assert log.voters.current.has_all_directories
    log.close()
    syncer.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("process.roles=controller\n", "node.id not found in configuration file."),
        ("node.id=-3\n", "node.id was negative in configuration file."),
        ("node.id=3\nprocess.roles=broker\n", "process.roles did not contain 'controller'"),
        ("node.id=3\nprocess.roles=controller\n", "Neither metadata.log.dir nor log.dirs were found."),
        (
            "node.id=3\nprocess.roles=controller\nlog.dirs=/none\n",
            "Unable to read meta.properties from /none",
        ),
    ],
)
def test_what_is_wrong_with_the_file_of_a_controller_to_add(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "controller.properties"
    file.write_text(content)
    with pytest.raises(ToolError, match=said):
        raft_voters.add_controller(None, str(file), dry_run=True)  # type: ignore[arg-type]  # a dry run asks nobody


def test_a_dry_run_says_which_controller_would_be_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meta.properties").write_text("version=1\nnode.id=3\ndirectory.id=JEXY6aqzQY-32P5TStzaFg\n")
    file = tmp_path / "controller.properties"
    listeners = "listeners=CONTROLLER://:9093\nadvertised.listeners=CONTROLLER://[::1]:9093\n"
    roles = "node.id=3\nprocess.roles=controller\ncontroller.listener.names=CONTROLLER\n"
    file.write_text(f"{roles}{listeners}log.dirs={tmp_path}\n")
    raft_voters.add_controller(None, str(file), dry_run=True)  # type: ignore[arg-type]
    said = "DRY RUN of adding controller 3 with directory id JEXY6aqzQY-32P5TStzaFg"
    assert capsys.readouterr().out == f"{said} and endpoints: CONTROLLER://[::1]:9093\n"
    raft_voters.remove_controller(None, 3, "JEXY6aqzQY-32P5TStzaFg", dry_run=True)  # type: ignore[arg-type]
    assert "DRY RUN of removing  KRaft controller 3" in capsys.readouterr().out
    with pytest.raises(ToolError, match="Failed to parse --controller-directory-id"):
        raft_voters.remove_controller(None, 3, "nonsense", dry_run=True)  # type: ignore[arg-type]
