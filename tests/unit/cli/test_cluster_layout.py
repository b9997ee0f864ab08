"""A local cluster on paper: which nodes, which ports, which server.properties."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from odradek.broker.config_builder import build_config
from odradek.broker.properties import parse_properties
from odradek.cli import cluster_nodes
from odradek.cli.cluster_layout import Layout, create, internal_ports, load
from odradek.cli.cluster_processes import DEAD, STOPPED, NodeProcess, foreign
from odradek.cli.options import ToolError, run_tool

BASE = 21_092


def layout(tmp_path: Path, nodes: int = 3, controllers: int = 0, **overrides: str) -> Layout:
    return create(tmp_path, nodes=nodes, controllers=controllers, base_port=BASE, overrides=overrides)


@pytest.mark.parametrize(("nodes", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)])
def test_the_first_nodes_are_controllers_too_an_odd_number_where_it_counts(
    tmp_path: Path, nodes: int, voters: int
) -> None:
    made = layout(tmp_path, nodes)
    assert [node.id for node in made.nodes if "controller" in node.roles] == list(range(1, voters + 1))
    assert all("broker" in node.roles for node in made.nodes)


def test_separate_controllers_have_ids_of_their_own_and_no_port_for_clients(tmp_path: Path) -> None:
    made = layout(tmp_path, 2, 3)
    assert [(node.id, node.roles, node.port) for node in made.nodes] == [
        (1, ("broker",), BASE),
        (2, ("broker",), BASE + 1),
        (101, ("controller",), None),
        (102, ("controller",), None),
        (103, ("controller",), None),
    ]
    assert made.bootstrap == f"localhost:{BASE},localhost:{BASE + 1}"


def test_no_cluster_id_looks_like_an_option(tmp_path: Path) -> None:
    """`storage format -t -jdA…` would ask for the id it was given; one random id in 64 begins with a dash."""
    assert not [made for made in (layout(tmp_path) for _ in range(500)) if made.cluster_id.startswith("-")]


@pytest.mark.parametrize(("nodes", "controllers"), [(1, 0), (2, 0), (3, 0), (3, 3), (6, 0)])
def test_every_node_accepts_its_properties(tmp_path: Path, nodes: int, controllers: int) -> None:
    made = layout(tmp_path, nodes, controllers, **{"log.retention.hours": "7"})
    made.write()
    for node in made.nodes:
        file = made.properties_file(node)
        config = build_config(parse_properties(file.read_text(), str(file)), cluster_id=made.cluster_id)
        assert (config.node_id, config.warnings) == (node.id, ())
        assert config.static["log.retention.hours"] == "7"
        copies = min(3, nodes)
        assert config.static["offsets.topic.replication.factor"] == str(copies)
        assert config.static["min.insync.replicas"] == ("2" if copies == 3 else "1")
        if nodes > 1:
            assert config.internal_address[1] == node.internal_port


def test_what_was_decided_is_kept(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    made = layout(tmp_path, 3, 1, **{"num.partitions": "4"})
    made.write()
    assert load(tmp_path) == made


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    with pytest.raises(ToolError, match=r"is damaged .* to start anew"):
        load(tmp_path)


def test_all_ports_differ_and_the_internal_ones_keep_away_from_outgoing_connections(tmp_path: Path) -> None:
    for base in (9092, 31_900, 40_000, 65_000):
        made = create(tmp_path, nodes=9, controllers=3, base_port=base, overrides={})
        ports = [port for node in made.nodes for port in node.ports]
        assert len(ports) == len(set(ports))
        assert all(node.internal_port < 32_768 and node.metrics_port < 32_768 for node in made.nodes)


def test_a_port_in_use_is_passed_over() -> None:
    first = internal_ports(4, BASE, ())
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", first[2]))
        taken.listen()
        assert first[2] not in internal_ports(4, BASE, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nodes": 0}, "--nodes 0"),
        ({"nodes": 100}, "--nodes 100"),
        ({"controllers": -1}, "--controllers -1"),
        ({"base_port": 0}, "--base-port 0"),
        ({"base_port": 65_534}, "--base-port 65534"),
    ],
)
def test_numbers_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, int], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        create(tmp_path, **{"nodes": 3, "controllers": 0, "base_port": BASE, "overrides": {}, **changes})  # type: ignore[arg-type]


def test_a_directory_that_a_list_of_directories_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="must not contain ','"):
        layout(tmp_path / "a,b")


def test_a_pid_file_is_believed_only_for_a_process_of_this_node(tmp_path: Path) -> None:
    made = layout(tmp_path)
    made.write()
    process = NodeProcess(made, made.nodes[0])
    assert (process.pid(), process.state()) == (None, STOPPED)
    pid_file = made.node_directory(made.nodes[0]) / "pid"
    pid_file.write_text(f"{os.getpid()}\n")  # lives, and is something else
    assert (process.pid(), process.state()) == (None, DEAD)
    pid_file.write_text("")
    assert process.pid() is None


def test_settings_of_the_environment_do_not_make_all_nodes_the_same_one() -> None:
    assert foreign("KAFKA_LISTENERS")
    assert foreign("ODRADEK_METRICS_PORT")
    assert not foreign("ODRADEK_LOG_LEVEL")
    assert not foreign("PATH")


def says(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit code, and what went to standard error: one line."""
    code = run_tool(cluster_nodes.run, argv)
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return code, error


@pytest.mark.parametrize("command", ["status", "stop", "kill 1", "pause 1", "resume 1", "restart 1"])
def test_commands_without_a_cluster_say_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    where = tmp_path / "none"
    code, error = says(capsys, *command.split(), "--dir", str(where))
    assert (code, error) == (
        1,
        f"There is no cluster in {where}. Start one: odradek cluster start --dir {where}",
    )


def test_commands_for_a_node_that_is_not_there_or_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout(tmp_path).write()
    where = str(tmp_path)
    assert says(capsys, "kill", "7", "--dir", where)[1].startswith("There is no node 7 in ")
    for command in ("kill", "pause", "resume", "stop"):
        assert says(capsys, command, "2", "--dir", where) == (
            1,
            f"node 2 is not running. Start it: odradek cluster restart 2 --dir {where}",
        )
    assert says(capsys, "stop", "--dir", where) == (0, "")


def test_options_that_contradict_the_cluster_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout(tmp_path).write()
    for option, value in (("--nodes", "5"), ("--controllers", "3"), ("--base-port", "9092")):
        code, error = says(capsys, "start", option, value, "--dir", str(tmp_path))
        assert code == 1
        assert error.startswith(f"{option} {value}: the cluster in ")


def test_a_port_that_somebody_has_is_named_and_nothing_is_left_behind_so_that_others_can_be_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = says(
            capsys, "start", "--nodes", "1", "--base-port", str(port), "--dir", str(tmp_path / "c")
        )
    assert code == 1
    assert said == f"node 1: port {port} is in use: choose other ports with --base-port"
    assert load(tmp_path / "c") is None


def test_a_node_that_has_data_keeps_its_ports(tmp_path: Path) -> None:
    made = layout(tmp_path)
    made.write()
    made.data_directory(made.nodes[0]).mkdir()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", made.nodes[0].internal_port))
        taken.listen()
        with pytest.raises(ToolError, match="is in use: end what has it"):
            NodeProcess(made, made.nodes[0]).check_ports()


def test_overrides_with_which_nodes_do_not_start_are_not_kept(tmp_path: Path) -> None:
    known = layout(tmp_path, **{"num.partitions": "4"})
    known.write()
    asked = replace(known, overrides={"num.partitions": "4", "log.retention.ms": "soon"})
    with pytest.raises(ToolError, match="did not start"), cluster_nodes.overrides_that_work(asked):
        raise ToolError("node 1 did not start")
    assert load(tmp_path) == known


def test_a_directory_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        code, said = says(capsys, "start", "--dir", str(place))
        assert code == 1
        assert said.startswith(f"--dir {place}: ")


def test_a_watch_without_a_terminal_says_what_to_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout(tmp_path).write()
    code, said = says(capsys, "status", "--watch", "--dir", str(tmp_path))
    assert (code, said) == (1, "--watch needs a terminal: leave it out, or take --json")
    code, said = says(capsys, "status", "--watch", "--json", "--dir", str(tmp_path))
    assert code == 1
    assert "--watch" in said


def test_data_of_nodes_without_their_layout_is_not_taken_for_a_new_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = layout(tmp_path)
    made.write()
    made.data_directory(made.nodes[1]).mkdir()
    (made.data_directory(made.nodes[1]) / "meta.properties").write_text("version=1\n")
    (tmp_path / "cluster.json").unlink()
    code, said = says(capsys, "start", "--dir", str(tmp_path))
    assert code == 1
    assert said.startswith(f"{tmp_path} has the data of nodes and no cluster.json: put that file back")
    assert load(tmp_path) is None
