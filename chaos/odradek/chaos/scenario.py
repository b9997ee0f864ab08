"""Scenarios: a workload, faults and what is expected of the cluster, as data. `chaos/scenarios/*.toml`.

A file is read strictly: ScenarioError names the file and the key, and says what is wrong with it. Times are seconds.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from odradek.chaos.kinds import CLIENT_PREFIXES, GROUPS_OF_NODES, KINDS, NETWORK, NETWORK_KINDS, WHO

NODES_MAX = 9
MINUTES_MAX = 24 * 60.0
COUNTED = ("fault", "heal")
Range = tuple[float, float]


class ScenarioError(Exception):
    """The scenario cannot be run; says which file and key, and why."""


@dataclass(frozen=True, slots=True)
class Expect:
    """What one fault may cost. `recover_s`: the longest time, in any partition, in which nothing is acknowledged."""

    recover_s: float | None = None
    median_s: float | None = None
    counted: str = "fault"
    """From the fault, or from when it is healed."""
    metadata_s: float | None = None
    """From healing until a topic can be created."""


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One entry of `[[faults]]`. Ranges are drawn from evenly."""

    kind: str
    who: str = "any"
    count: int = 1
    """How many at once."""
    times: int = 1
    """How often in a row, in a sequence."""
    weight: int = 1
    """In a random order."""
    for_s: Range = (1.0, 3.0)
    settings: Mapping[str, Any] = field(default_factory=dict)
    expect: Expect = Expect()

    @property
    def label(self) -> str:
        victims = self.who if self.count == 1 else f"{self.count} nodes"
        return f"{self.kind} {victims}"


@dataclass(frozen=True, slots=True)
class Clients:
    """How many of each kind. `per_s`: records per second of each writer. `mortal`: they are killed and frozen too.

    `timeout_s`: how long they wait for the answer to a request. By this alone a client learns that a broker hangs, and
    librdkafka's own are 30 and 60 s.
    """

    writers: int = 2
    transactions: int = 1
    movers: int = 1
    classic: int = 2
    consumer: int = 2
    static: int = 0
    readers: int = 1
    slow: int = 0
    per_s: int = 200
    mortal: bool = False
    timeout_s: float | None = None

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in CLIENT_PREFIXES}


@dataclass(frozen=True, slots=True)
class Scenario:
    """See the module."""

    name: str
    text: str
    file: str
    faults: tuple[FaultSpec, ...]
    nodes: int = 3
    controllers: int = 0
    """Processes of their own; 0: the nodes are controllers too."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    clients: Clients = Clients()
    order: str = "sequence"
    rounds: int = 1
    minutes: float | None = None
    """Of faults: for a random order, and for a sequence that goes on from its beginning."""
    calm_s: Range = (2.0, 3.0)
    """Between faults, after everybody is in sync again (`await_in_sync`)."""
    await_in_sync: bool = True
    client_errors_max: int | None = None
    """Records that a producer was told have failed, and clients that had to begin anew. None: not looked at."""

    @property
    def network(self) -> bool:
        return any(fault.kind in NETWORK_KINDS for fault in self.faults)

    @property
    def through_proxies(self) -> bool:
        """Whether clients' connections are hurt as well."""
        return any(fault.settings.get("clients") for fault in self.faults)

    @property
    def voters(self) -> int:
        return self.controllers or self.nodes - (self.nodes + 1) % 2


def scenario_directory() -> Path:
    """Beside the package in an installed wheel, beside its source root in a checkout."""
    here = Path(__file__).resolve()
    installed = here.parent / "scenarios"
    return installed if installed.is_dir() else here.parents[2] / "scenarios"


def shipped() -> list[Scenario]:
    """Every scenario that comes with the package, by name."""
    return [load(path) for path in sorted(scenario_directory().glob("*.toml"))]


def find(name: str) -> Scenario:
    """By the name of one that is shipped, or the path of a file. ScenarioError."""
    if name.endswith(".toml") or "/" in name:
        return load(Path(name))
    path = scenario_directory() / f"{name}.toml"
    if path.is_file():
        return load(path)
    known = [each.stem for each in sorted(scenario_directory().glob("*.toml"))]
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ScenarioError(f"there is no scenario '{name}'.{hint} See odradek chaos list, or give a .toml file")


def load(path: Path) -> Scenario:
    """Read and check one file."""
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from error
    return parse(content, str(path), path.stem)


def parse(content: Mapping[str, Any], file: str, name: str) -> Scenario:
    """ScenarioError names `file` and the key."""
    top = _Table(file, "", content)
    cluster, plan = top.table("cluster"), top.table("plan")
    clients, expect = top.table("clients"), top.table("expect")
    nodes = cluster.whole("nodes", 3, 1, NODES_MAX)
    found = Scenario(
        name=name,
        text=top.text("description"),
        file=file,
        nodes=nodes,
        controllers=cluster.whole("controllers", 0, 0, 5),
        overrides=_overrides(cluster),
        clients=_clients(clients),
        order=plan.one_of("order", "sequence", ("sequence", "random")),
        rounds=plan.whole("rounds", 1, 1, 1_000),
        minutes=plan.number("minutes", None, 0.05, MINUTES_MAX),
        calm_s=plan.range("calm_s", (2.0, 3.0)),
        await_in_sync=plan.flag("await_in_sync", True),
        client_errors_max=expect.whole_or_none("client_errors_max", 0, 1_000_000),
        faults=tuple(_fault(each) for each in top.tables("faults")),
    )
    for table in (top, cluster, plan, clients, expect):
        table.end()
    if not found.faults:
        raise top.wrong("faults", "there must be one at least")
    for index, fault in enumerate(found.faults):
        _check_possible(found, fault, lambda key, why, at=index: top.wrong(f"faults[{at}].{key}", why))
    return found


def _overrides(cluster: _Table) -> dict[str, str]:
    found = cluster.raw("overrides", dict, {})
    return {str(key): str(value) for key, value in found.items()}


def _clients(table: _Table) -> Clients:
    standard = Clients()
    counts = {name: table.whole(name, count, 0, 20) for name, count in standard.counts().items()}
    per_s = table.whole("per_s", standard.per_s, 1, 100_000)
    if not counts["writers"]:
        raise table.wrong("writers", "1 at least: by what they are told it is judged when writes go on")
    timeout_s = table.number("timeout_s", None, 0.5, 300.0)
    return Clients(**counts, per_s=per_s, mortal=table.flag("mortal", False), timeout_s=timeout_s)


def _fault(table: _Table) -> FaultSpec:
    kind = table.one_of("kind", None, KINDS)
    settings = {}
    for key in KINDS[kind].keys:
        settings[key] = _SETTINGS[key](table, key)
    expect = table.table("expect")
    found = FaultSpec(
        kind=kind,
        who=table.one_of("who", "any", WHO),
        count=table.whole("count", 1, 1, NODES_MAX),
        times=table.whole("times", 1, 1, 1_000),
        weight=table.whole("weight", 1, 1, 1_000),
        for_s=table.range("for_s", (1.0, 3.0)),
        settings=settings,
        expect=Expect(
            recover_s=expect.number("recover_s", None, 0.0, 3_600.0, above=True),
            median_s=expect.number("median_s", None, 0.0, 3_600.0, above=True),
            counted=expect.one_of("counted", "fault", COUNTED),
            metadata_s=expect.number("metadata_s", None, 0.0, 3_600.0, above=True),
        ),
    )
    expect.end()
    table.end()
    return found


def _check_possible(scenario: Scenario, fault: FaultSpec, wrong: Any) -> None:
    """What no cluster could do."""
    kind, expect = KINDS[fault.kind], fault.expect
    if fault.count > scenario.nodes:
        raise wrong("count", f"{fault.count} of {scenario.nodes} nodes")
    if fault.count > 1 and fault.who in GROUPS_OF_NODES:
        raise wrong("count", f'cannot be given together with who = "{fault.who}"')
    if kind.needs == NETWORK and scenario.nodes < 2:
        raise wrong("kind", f"{fault.kind} needs two nodes at least, and cluster.nodes is {scenario.nodes}")
    if kind.needs == NETWORK and (fault.who in GROUPS_OF_NODES) != (
        fault.kind in ("delay", "loss", "bandwidth")
    ):
        said = 'who = "all"' if fault.kind in ("delay", "loss", "bandwidth") else "one node"
        raise wrong("who", f"{fault.kind} is done to {said}")
    if fault.kind == "bridge" and scenario.nodes < 3:
        raise wrong("kind", f"a bridge needs three nodes at least, and cluster.nodes is {scenario.nodes}")
    if fault.kind == "cut-followers" and not scenario.controllers:
        raise wrong(
            "kind", "cut-followers needs cluster.controllers: else to cut brokers is to cut controllers"
        )
    if fault.who == "controllers" and not scenario.controllers:
        raise wrong("who", '"controllers" needs cluster.controllers: else they are brokers, see "all"')
    if expect.median_s is not None and expect.recover_s is not None and expect.median_s > expect.recover_s:
        raise wrong(
            "expect.median_s", f"{expect.median_s:g} is more than the longest allowed, {expect.recover_s:g}"
        )
    if expect.recover_s is not None and expect.counted == "fault" and kind.stops:
        stopped = scenario.nodes if fault.who == "all" else 0 if fault.who == "controllers" else fault.count
        least = min(2, scenario.nodes) if scenario.nodes >= 3 else 1
        if scenario.nodes - stopped < max(least, 0 if scenario.controllers else scenario.voters // 2 + 1):
            raise wrong(
                "expect.counted",
                f'"fault" cannot be met: {stopped} of {scenario.nodes} nodes are down until it is healed',
            )


class _Table:
    """A table of a scenario file; every key has to be asked for before `end`."""

    def __init__(self, file: str, path: str, content: Any) -> None:
        self._file = file
        self._path = path
        if not isinstance(content, Mapping):
            raise ScenarioError(f"{file}: {path}: must be a table")
        self._left = dict(content)
        self._known: list[str] = []

    def wrong(self, key: str, why: str) -> ScenarioError:
        return ScenarioError(f"{self._file}: {self._name(key)}: {why}")

    def _name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._left.pop(key, None)

    def end(self) -> None:
        for key in self._left:
            near = difflib.get_close_matches(key, self._known, 1)
            raise self.wrong(key, "is not known" + (f", did you mean {near[0]}?" if near else ""))

    def table(self, key: str) -> _Table:
        found = self._take(key)
        return _Table(self._file, self._name(key), {} if found is None else found)

    def tables(self, key: str) -> list[_Table]:
        found = self._take(key)
        if not isinstance(found, list):
            raise self.wrong(key, "write [[faults]], once for each")
        return [_Table(self._file, f"{self._name(key)}[{index}]", each) for index, each in enumerate(found)]

    def raw(self, key: str, kind: type, otherwise: Any) -> Any:
        found = self._take(key)
        if found is None:
            return otherwise
        if not isinstance(found, kind):
            raise self.wrong(key, f"{found!r} is not a {kind.__name__}")
        return found

    def text(self, key: str) -> str:
        found = self._take(key)
        if not isinstance(found, str) or not found.strip():
            raise self.wrong(key, "a sentence is needed" if found is None else f"{found!r} is not a sentence")
        return found.strip()

    def flag(self, key: str, otherwise: bool) -> bool:
        found = self._take(key)
        if found is None:
            return otherwise
        if not isinstance(found, bool):
            raise self.wrong(key, f"{found!r} is not true or false")
        return found

    def whole_or_none(self, key: str, low: int, high: int) -> int | None:
        found = self._take(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
            raise self.wrong(key, f"{found!r} is not a whole number from {low} to {high}")
        return found

    def whole(self, key: str, otherwise: int, low: int, high: int) -> int:
        found = self.whole_or_none(key, low, high)
        return otherwise if found is None else found

    def number(
        self, key: str, otherwise: float | None, low: float, high: float, *, above: bool = False
    ) -> float | None:
        found = self._take(key)
        if found is None:
            return otherwise
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            raise self.wrong(key, f"{found!r} is not a number from {low:g} to {high:g}")
        if above and found <= low:
            raise self.wrong(key, f"{found!r} is impossible: it must be more than {low:g}")
        return float(found)

    def range(self, key: str, otherwise: Range) -> Range:
        """One number, or two."""
        found = self._take(key)
        if found is None:
            return otherwise
        both = found if isinstance(found, list) else [found, found]
        right = len(both) == 2 and all(
            isinstance(each, int | float) and not isinstance(each, bool) for each in both
        )
        if not right or not 0 <= both[0] <= both[1] <= 3_600:
            raise self.wrong(key, f"{found!r} is not [least, most] of seconds")
        return float(both[0]), float(both[1])

    def one_of(self, key: str, otherwise: str | None, allowed: Collection[str]) -> str:
        found = self._take(key)
        if found is None and otherwise is not None:
            return otherwise
        if found is None:
            raise self.wrong(key, "is missing")
        if found not in allowed:
            near = difflib.get_close_matches(str(found), allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(allowed)}"
            raise self.wrong(key, f"{found!r} is not known, {hint}")
        return str(found)


def _required(low: float, high: float) -> Any:
    def read(table: _Table, key: str) -> float:
        found = table.number(key, None, low, high)
        if found is None:
            raise table.wrong(key, "is missing")
        return found

    return read


_SETTINGS: dict[str, Any] = {
    "direction": lambda table, key: table.one_of(key, "out", ("out", "in")),
    "clients": lambda table, key: table.flag(key, False),
    "delay_ms": _required(1, 10_000),
    "jitter_ms": lambda table, key: table.number(key, 0.0, 0, 10_000),
    "loss": _required(0.001, 0.9),
    "kb_per_s": _required(1, 10_000_000),
    "write_ms": _required(0, 60_000),
    "fsync_ms": _required(0, 60_000),
    "offset_s": _required(-1e9, 1e9),
}
