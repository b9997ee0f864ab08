"""What `odradek cluster status` draws, on terminals of different widths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from odradek.cli.cluster_layout import create
from odradek.cli.cluster_view import ClusterView, NodeView, PartitionView, draw, view_of
from odradek.wire.messages.describe_quorum import DescribeQuorumResponsePartitionData, ReplicaState


def node(node_id: int, roles: tuple[str, ...] = ("broker", "controller")) -> NodeView:
    return NodeView(
        id=node_id,
        pid=1_234_560 + node_id,
        roles=roles,
        state="starting",
        kafka=f"localhost:{19_091 + node_id}" if "broker" in roles else None,
        controller=node_id == 2,
        leaders=1_234,
        replicas=3_702,
        in_sync=3_702,
        lag=98_765,
        metadata_lag=0,
        rss_mb=1_024.0,
        metrics="",
        log="",
    )


def partition(topic: str, number: int) -> PartitionView:
    return PartitionView(topic, number, 1, [1, 2, 3], [1, 2, 3], {1: 7, 2: 7, 3: 7})


def picture(width: int, *partitions: PartitionView, rows_max: int = 24, controller: bool = True) -> list[str]:
    nodes = [node(1), node(2), node(3, ("broker",)), node(101, ("controller",))]
    nodes = [each._replace(controller=each.controller and controller) for each in nodes]
    bootstrap = ",".join(each.kafka for each in nodes if each.kafka)
    view = ClusterView(nodes, list(partitions), bootstrap, "W-2XG8tY934JxQJe19jP0A", answered=True)
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(draw(view, width, rows_max))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 81, 100, 107, 120, 200])
def test_no_cell_is_cut_on_terminals_of_80_columns_and_more(width: int) -> None:
    lines = picture(width, partition("orders", 0))
    assert not [line for line in lines if "…" in line]
    head = next(line for line in lines if "STATE" in line)
    for name in ("NODE", "ROLES", "PID", "LEADERS", "IN SYNC", "LAG", "METADATA", "MB"):
        assert name in head
    second = next(line.split() for line in lines if "1234562" in line)
    assert second[-5:] == ["1234", "3702/3702", "98765", "controller", "1024"]
    assert max(map(len, lines)) <= width
    assert "bootstrap.servers=localhost:19092,localhost:19093,localhost:19094" in lines


def test_roles_and_addresses_are_spelled_out_where_there_is_room() -> None:
    assert any("broker, controller" in line and "localhost:19092" in line for line in picture(120))
    assert any("combined" in line and " 19092 " in line for line in picture(80))


def test_what_does_not_fit_is_counted_by_topic() -> None:
    users = [partition("orders", number) for number in range(5)] + [partition("payments", 0)]
    internal = [partition("__consumer_offsets", number) for number in range(50)]
    rows = [line.split() for line in picture(120, *users, *internal, rows_max=3)]
    assert ["orders", "2", "1", "1,2,3", "1,2,3", "7", "0"] in rows
    assert ["orders", "2", "more", "in", "sync"] in rows
    assert ["payments", "all", "1", "in", "sync"] in rows
    assert ["__consumer_offsets", "all", "50", "in", "sync"] in rows


def test_a_node_whose_process_is_gone_is_not_said_to_be_up_to_date(tmp_path: Path) -> None:
    layout = create(tmp_path, nodes=3, controllers=0, base_port=21_092, overrides={})
    voters = [ReplicaState(replica_id=node.id, log_end_offset=100) for node in layout.nodes]
    quorum = DescribeQuorumResponsePartitionData(leader_id=2, current_voters=voters)
    pids = (os.getpid(), None, os.getpid())
    views = [
        view_of(layout, node, pid, "running" if pid else "dead", None, quorum)
        for node, pid in zip(layout.nodes, pids, strict=True)
    ]
    assert [view.metadata_lag for view in views] == [0, None, 0]
    assert not any(view.controller for view in views)


def test_a_cluster_without_an_active_controller_says_what_is_missing() -> None:
    said = "No controller is active: most of 1, 2, 101 must run for anything to change."
    assert said in picture(80, controller=False)
    assert said not in picture(80)
