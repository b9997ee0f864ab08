"""What `odradek cluster status` draws, on terminals of different widths."""

from __future__ import annotations

import pytest
from rich.console import Console

from odradek.cli.cluster_view import ClusterView, NodeView, PartitionView, draw


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


def picture(width: int, *partitions: PartitionView, rows_max: int = 24) -> list[str]:
    nodes = [node(1), node(2), node(3, ("broker",)), node(101, ("controller",))]
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
