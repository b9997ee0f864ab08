"""Scenario files are read strictly: what is wrong is said in one line that names file and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from odradek.chaos.kinds import KINDS
from odradek.chaos.local import LocalTarget
from odradek.chaos.scenario import Scenario, ScenarioError, find, load, parse, shipped
from odradek.chaos.target import check_possible
from odradek.chaos.workload import build, transactional, workers

KILL = {"kind": "kill", "who": "leader"}


def scenario(*faults: dict[str, Any], **tables: Any) -> Scenario:
    return parse(
        {"description": "what happens", "faults": list(faults) or [KILL], **tables}, "mine.toml", "mine"
    )


def refused(*faults: dict[str, Any], **tables: Any) -> str:
    with pytest.raises(ScenarioError) as told:
        scenario(*faults, **tables)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_every_scenario_that_is_shipped_can_be_read_and_done_to_local_nodes(tmp_path: Path) -> None:
    found = shipped()
    assert len(found) >= 25
    for each in found:
        check_possible(each, LocalTarget(tmp_path, each))


def test_every_fault_is_in_a_scenario_that_is_shipped() -> None:
    assert {fault.kind for each in shipped() for fault in each.faults} == set(KINDS)


def test_the_standard_scenario_is_the_random_mix() -> None:
    found = find("random")
    assert found.order == "random" and found.clients.mortal and found.minutes == 5


def test_a_scenario_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[[faults]]\nkind = "kill"\nfor_s = 2\n')
    found = find(str(path))
    assert found.name == "mine" and found.faults[0].for_s == (2.0, 2.0)


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'leader-kil'\. Did you mean leader-kill\?"):
        find("leader-kil")


def test_a_file_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("faults = [")
    with pytest.raises(ScenarioError, match=r"bad\.toml: not TOML"):
        load(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "kil"}, "mine.toml: faults[0].kind: 'kil' is not known, did you mean kill?"),
        ({"kind": "flood"}, "mine.toml: faults[0].kind: 'flood' is not known, known: kill, pause"),
        ({}, "mine.toml: faults[0].kind: is missing"),
        ({**KILL, "fro_s": 2}, "mine.toml: faults[0].fro_s: is not known, did you mean for_s?"),
        ({**KILL, "who": "boss"}, "mine.toml: faults[0].who: 'boss' is not known"),
        ({**KILL, "count": 4}, "mine.toml: faults[0].count: 4 of 3 nodes"),
        ({**KILL, "for_s": [3, 1]}, "mine.toml: faults[0].for_s: [3, 1] is not [least, most] of seconds"),
        ({**KILL, "weight": True}, "mine.toml: faults[0].weight: True is not a whole number from 1 to 1000"),
        (
            {**KILL, "expect": {"recover_s": 0}},
            "faults[0].expect.recover_s: 0 is impossible: it must be more than 0",
        ),
        (
            {**KILL, "expect": {"recover": 1}},
            "faults[0].expect.recover: is not known, did you mean recover_s?",
        ),
        (
            {**KILL, "expect": {"recover_s": 1, "median_s": 2}},
            "mine.toml: faults[0].expect.median_s: 2 is more than the longest allowed, 1",
        ),
        (
            {"kind": "kill", "who": "all", "expect": {"recover_s": 5}},
            'mine.toml: faults[0].expect.counted: "fault" cannot be met: 3 of 3 nodes are down until it is healed',
        ),
        ({"kind": "delay", "who": "all"}, "mine.toml: faults[0].delay_ms: is missing"),
        ({"kind": "delay", "delay_ms": 5}, 'mine.toml: faults[0].who: delay is done to who = "all"'),
        ({"kind": "isolate", "who": "all"}, "mine.toml: faults[0].who: isolate is done to one node"),
        (
            {"kind": "loss", "who": "all", "loss": 2},
            "mine.toml: faults[0].loss: 2 is not a number from 0.001 to 0.9",
        ),
        (
            {"kind": "kill", "who": "controllers"},
            'mine.toml: faults[0].who: "controllers" needs cluster.controllers',
        ),
        (
            {"kind": "cut-followers", "who": "leader"},
            "mine.toml: faults[0].kind: cut-followers needs cluster.contr",
        ),
    ],
)
def test_faults_that_cannot_be(fault: dict[str, Any], said: str) -> None:
    assert said in refused(fault)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"workload": {}}, "mine.toml: workload: is not known"),
        ({"description": ""}, "mine.toml: description: '' is not a sentence"),
        ({"faults": []}, "mine.toml: faults: there must be one at least"),
        ({"faults": KILL}, "mine.toml: faults: write [[faults]], once for each"),
        ({"cluster": {"nodes": 0}}, "mine.toml: cluster.nodes: 0 is not a whole number from 1 to 9"),
        ({"cluster": 3}, "mine.toml: cluster: must be a table"),
        ({"clients": {"writers": 0}}, "mine.toml: clients.writers: 1 at least"),
        ({"clients": {"mortal": 1}}, "mine.toml: clients.mortal: 1 is not true or false"),
        ({"plan": {"order": "any"}}, "mine.toml: plan.order: 'any' is not known"),
        ({"expect": {"client_errors": 0}}, "client_errors: is not known, did you mean client_errors_max?"),
    ],
)
def test_tables_that_cannot_be(tables: dict[str, Any], said: str) -> None:
    assert said in refused(**tables)


def test_one_node_has_no_network() -> None:
    assert "needs two nodes" in refused({"kind": "isolate"}, cluster={"nodes": 1})
    assert "needs three nodes" in refused({"kind": "bridge"}, cluster={"nodes": 2})


def test_a_fault_that_the_target_cannot_do_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scenario(KILL, {"kind": "clock-jump", "offset_s": 5})
    target = LocalTarget(tmp_path, found)
    monkeypatch.setattr(
        target, "impossible", lambda kind: "it has no clock" if kind == "clock-jump" else None
    )
    with pytest.raises(
        ScenarioError, match=r"mine\.toml: faults\[1\]\.kind: clock-jump .* --target local: it has no clock"
    ):
        check_possible(found, target)


def test_clients_have_the_names_they_are_built_by() -> None:
    found = scenario(clients={"readers": 2, "slow": 1, "static": 2, "mortal": True}).clients
    names = workers(found)
    assert {
        "writer-1",
        "ledger-0",
        "mover-0",
        "committed",
        "everything",
        "slow-0",
        "static-1",
        "watcher",
    } <= {*names}
    for name in names:
        assert build(name, f"{name}.1", None, 1).name == name  # type: ignore[arg-type]
    assert transactional(names) == ["ledger-0", "mover-0"]


def test_a_command_line_that_is_wrong_ends_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "x"\n[[faults]]\nkind = "kil"\n')
    command = [sys.executable, "-m", "odradek.cli.main", "chaos", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.strip() == f"{path}: faults[0].kind: 'kil' is not known, did you mean kill?"


def test_a_history_is_judged_without_the_clients_package(tmp_path: Path) -> None:
    history = tmp_path / "h.jsonl"
    history.write_text("")
    code = (
        "import sys; sys.modules['confluent_kafka'] = None; from odradek.cli.main import main; "
        f"sys.exit(main(['chaos', 'check', {str(history)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "NOT VALID" in done.stdout and not done.stderr
