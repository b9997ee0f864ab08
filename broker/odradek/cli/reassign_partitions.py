"""`kafka-reassign-partitions`: moves replicas to other brokers, and to other log directories of a broker."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from random import SystemRandom
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool
from odradek.cli.reassignment_plan import (
    Part,
    Plan,
    Replica,
    as_json,
    checked,
    moves_of,
    parse_brokers,
    parse_plan,
    parse_topics,
    place,
    throttled_replicas,
)

if TYPE_CHECKING:
    import argparse

    from odradek.cli.admin import Admin

ACTIONS = ("generate", "execute", "verify", "cancel", "list")
ALLOWED = {
    "verify": ("reassignment_json_file", "preserve_throttles"),
    "generate": ("topics_to_move_json_file", "broker_list", "disable_rack_aware"),
    "execute": (
        "reassignment_json_file", "additional", "throttle", "replica_alter_log_dirs_throttle", "timeout",
        "disallow_replication_factor_change",
    ),
    "cancel": ("reassignment_json_file", "preserve_throttles", "timeout"),
    "list": (),
}  # fmt: skip
NEEDED = {
    "verify": ("reassignment-json-file",),
    "generate": ("topics-to-move-json-file", "broker-list"),
    "execute": ("reassignment-json-file",),
    "cancel": ("reassignment-json-file",),
    "list": (),
}
RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
ALTER_DIRS_RATE = "replica.alter.log.dirs.io.max.bytes.per.second"
THROTTLED = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")
TOPIC, BROKER = 2, 4
AGAIN_S = 0.1
"""Between tries to have a replica moved that is not there yet."""
THERE_IS_ONE = (
    "Cannot execute because there is an existing partition assignment.  Use --additional to override this and create a "
    "new partition assignment in addition to the existing one. The --additional flag can also be used to change the "
    "throttle by resubmitting the current reassignment."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    parser = build_parser()
    options = parser.parse(argv)
    chosen = [action for action in ACTIONS if getattr(options, action)]
    if len(chosen) != 1:
        parser.error(
            "Command must include exactly one action: " + ", ".join(f"--{action}" for action in ACTIONS)
        )
    if not options.bootstrap_server:
        parser.error("Please specify either --bootstrap-server or --bootstrap-controller")
    action = chosen[0]
    parser.require(options, *NEEDED[action])
    for name in {each for allowed in ALLOWED.values() for each in allowed}:
        if name not in ALLOWED[action] and getattr(options, name) not in (None, False):
            option = name.replace("_", "-")
            parser.error(f'Option "[{option}]" can\'t be used with action "[{action}]"')
    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config, "reassign-partitions-tool") as admin:
        Reassignment(admin).do(action, options)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek reassign-partitions"),
        description="This tool helps to move topic partitions between replicas.",
    )
    parser.add_argument(
        "--bootstrap-server", metavar="HOST:PORT", help="The server(s) to use for bootstrapping."
    )
    parser.add_argument(
        "--bootstrap-controller", dest="bootstrap_server", metavar="HOST:PORT",
        help="A controller to ask instead, with --cancel and --list.",
    )  # fmt: skip
    parser.add_argument("--command-config", metavar="FILE", help="Property file for the admin client.")
    for action, text in (
        ("verify", "Tell how far a reassignment is; when it is done, throttles are removed."),
        ("generate", "Propose a reassignment, without executing it."),
        ("execute", "Begin a reassignment."),
        ("cancel", "Stop a reassignment that is under way."),
        ("list", "List all reassignments that are under way."),
    ):
        parser.add_argument(f"--{action}", action="store_true", help=text)
    parser.add_argument(
        "--reassignment-json-file", metavar="FILE",
        help='{"partitions": [{"topic": "foo", "partition": 1, "replicas": [1,2], "log_dirs": ["/a","any"]}], '
        '"version": 1}; log_dirs may be left out.',
    )  # fmt: skip
    parser.add_argument(
        "--topics-to-move-json-file", metavar="FILE", help='{"topics": [{"topic": "foo"}], "version": 1}'
    )
    parser.add_argument(
        "--broker-list", metavar="0,1,2", help="The brokers to move topics to, for --generate."
    )
    parser.add_argument("--disable-rack-aware", action="store_true", help="Propose without a look at racks.")
    parser.add_argument(
        "--throttle", type=int, metavar="B/S", help="Limit of what moves between brokers, in bytes a second."
    )
    parser.add_argument(
        "--replica-alter-log-dirs-throttle", type=int, metavar="B/S",
        help="Limit of what moves between log directories of a broker, in bytes a second.",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=int, metavar="MS",
        help="How long to wait for replicas whose log directory is to be changed (default: 10000).",
    )  # fmt: skip
    parser.add_argument(
        "--additional", action="store_true", help="Execute although another reassignment is under way."
    )
    parser.add_argument("--preserve-throttles", action="store_true", help="Leave throttles as they are.")
    parser.add_argument(
        "--disallow-replication-factor-change", action="store_true",
        help="Refuse to change the number of replicas of a partition.",
    )  # fmt: skip
    parser.add_version()
    return parser


class Reassignment:
    """The five actions."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def do(self, action: str, options: argparse.Namespace) -> None:
        if action == "list":
            self.show()
        elif action == "generate":
            topics = parse_topics(_read(options.topics_to_move_json_file))
            self.generate(topics, parse_brokers(options.broker_list), racks=not options.disable_rack_aware)
        else:
            plan = parse_plan(_read(options.reassignment_json_file))
            timeout_s = (10_000 if options.timeout is None else options.timeout) / 1000
            if action == "verify":
                self.verify(plan, keep=options.preserve_throttles)
            elif action == "cancel":
                self.cancel(plan, timeout_s, keep=options.preserve_throttles)
            else:
                self.execute(checked(plan), options, timeout_s)

    # -- execute ----------------------------------------------------------------------------------------------------

    def execute(self, plan: Plan, options: argparse.Namespace, timeout_s: float) -> None:
        ongoing = self._ongoing()
        if ongoing and not options.additional:
            raise ToolError(THERE_IS_ONE, to_stdout=True)
        live = self._admin.broker_ids()
        unknown = [broker for _, replicas in plan.parts for broker in replicas if broker not in live]
        if unknown:
            raise ToolError(f"Error: Unknown broker id {unknown[0]}", to_stdout=True)
        current = self._current(plan.topics)
        _check_topics(plan.topics, current)
        missing = [part for part, _ in plan.parts if part not in current]
        if missing:
            raise _not_found(f"Unable to find partition: {', '.join(map(str, missing))}")
        current = {part: current[part] for part, _ in plan.parts}
        print(
            f"Current partition replica assignment\n\n{as_json(current, self._where(current))}\n\n"
            "Save this to use as the --reassignment-json-file option during rollback"
        )
        self._throttle(plan, ongoing, current, options)
        self._reassign(
            plan.replicas,
            "Error reassigning partition(s):",
            may_change=not options.disallow_replication_factor_change,
        )
        print(
            f"Successfully started partition reassignment{_s(plan.parts)} for {_listed(plan.replicas)}",
            flush=True,
        )
        if plan.directories:
            self._move(plan.directories, timeout_s)

    def _throttle(
        self,
        plan: Plan,
        ongoing: dict[Part, Any],
        current: dict[Part, list[int]],
        options: argparse.Namespace,
    ) -> None:
        between, within = options.throttle, options.replica_alter_log_dirs_throttle
        if (between is None or between < 0) and (within is None or within < 0):
            return
        print(
            "Warning: You must run --verify periodically, until the reassignment completes, to ensure the throttle is "
            "removed."
        )
        if between is not None and between >= 0:
            moves = moves_of(ongoing, plan.replicas, current)
            for topic, values in throttled_replicas(moves).items():
                self._admin.alter_configs(TOPIC, topic, dict(zip(THROTTLED, values, strict=True)), ())
            brokers = sorted({broker for move in moves.values() for side in move for broker in side})
            for broker in brokers:
                self._admin.alter_configs(BROKER, str(broker), dict.fromkeys(RATES, str(between)), ())
            print(f"The inter-broker throttle limit was set to {between} B/s")
        if within is not None and within >= 0:
            for broker in sorted({replica.broker for replica in plan.directories}):
                self._admin.alter_configs(BROKER, str(broker), {ALTER_DIRS_RATE: str(within)}, ())
            print(f"The replica-alter-dir throttle limit was set to {within} B/s")

    def _reassign(
        self, wanted: Mapping[Part, Sequence[int] | None], failed: str, *, may_change: bool = True
    ) -> None:
        from kafka.protocol.admin import AlterPartitionReassignmentsRequest as Request

        from odradek.cli.admin import ADMIN_TIMEOUT_MS, ClusterError

        topics: dict[str, list[tuple[int, list[int] | None]]] = {}
        for part in sorted(wanted):
            replicas = wanted[part]
            topics.setdefault(part.topic, []).append(
                (part.partition, None if replicas is None else list(replicas))
            )
        answer = self._admin.send(
            Request(
                timeout_ms=ADMIN_TIMEOUT_MS, allow_replication_factor_change=may_change, topics=list(topics.items()),
                min_version=0 if may_change else 1,
            )
        ).to_dict()  # fmt: skip
        _check(answer)
        errors = [
            f"{Part(topic['name'], each['partition_index'])}: "
            f"{ClusterError(each['error_code'], each['error_message']).said}"
            for topic in answer["responses"]
            for each in topic["partitions"]
            if each["error_code"]
        ]
        if errors:
            raise ToolError("\n".join((failed, *errors)), to_stdout=True)

    def _move(self, directories: Mapping[Replica, str], timeout_s: float) -> None:
        """Until each move has begun: a replica that is new comes into being a little later."""
        pending = dict(directories)
        deadline = time.monotonic() + timeout_s
        while True:
            for replica in sorted(self._alter_directories(pending)):
                print(
                    f"Successfully started moving log directory to {pending.pop(replica)} for replica "
                    f"{replica.topic}-{replica.partition} with broker {replica.broker} ",
                    flush=True,
                )
            if not pending:
                return
            if time.monotonic() >= deadline:
                raise ToolError(
                    f"Timed out before log directory move{_s(pending)} could be started for: {_listed(pending)}",
                    to_stdout=True,
                )
            time.sleep(AGAIN_S)

    def _alter_directories(self, wanted: Mapping[Replica, str]) -> list[Replica]:
        """Those whose move has begun."""
        from kafka.protocol.admin import AlterReplicaLogDirsRequest

        from odradek.cli.admin import ClusterError
        from odradek.wire.errors import ErrorCode

        begun = []
        for broker in sorted({replica.broker for replica in wanted}):
            by_path: dict[str, dict[str, list[int]]] = {}
            for replica, path in wanted.items():
                if replica.broker == broker:
                    by_path.setdefault(path, {}).setdefault(replica.topic, []).append(replica.partition)
            request = AlterReplicaLogDirsRequest(
                dirs=[(path, list(topics.items())) for path, topics in by_path.items()]
            )
            for topic in self._admin.send(request, broker).to_dict()["results"]:
                for each in topic["partitions"]:
                    replica = Replica(broker, topic["topic_name"], each["partition_index"])
                    if not each["error_code"]:
                        begun.append(replica)
                    elif each["error_code"] != ErrorCode.REPLICA_NOT_AVAILABLE:
                        why = ClusterError(each["error_code"], None).said
                        raise ToolError(f"Error: Failed to alter dir for {replica}: {why}", to_stdout=True)
        return begun

    # -- verify -----------------------------------------------------------------------------------------------------

    def verify(self, plan: Plan, *, keep: bool) -> None:
        ongoing = self._ongoing()
        wanted = plan.replicas
        current = self._current(part.topic for part in wanted if part not in ongoing)
        print("Status of partition reassignment:")
        for part in sorted(wanted):
            found = current.get(part, [])
            if part in ongoing:
                print(f"Reassignment of partition {part} is still in progress.")
            elif found == wanted[part]:
                print(f"Reassignment of partition {part} is completed.")
            else:
                print(
                    f"There is no active reassignment of partition {part}, but replica set is "
                    f"{','.join(map(str, found))} rather than {','.join(map(str, wanted[part]))}."
                )
        moving = self._tell_moves(plan.directories)
        if not ongoing and not moving and not keep:
            self._clear_throttles(plan)

    def _tell_moves(self, directories: Mapping[Replica, str]) -> bool:
        """How far moves between log directories are; whether one is under way, or cannot be told."""
        now, later = self._directories(directories)
        busy = False
        for replica in sorted(directories):
            target, name = directories[replica], f"{replica.topic}-{replica.partition}"
            if replica not in now:
                busy = True
                print(
                    f"Partition {name} is not found in any live log dir on broker {replica.broker}. There is likely an "
                    "offline log directory on the broker."
                )
            elif replica in later:
                busy = True
                if later[replica] == target:
                    print(f"Reassignment of replica {replica} is still in progress.")
                else:
                    print(
                        f"Partition {name} on broker {replica.broker} is being moved to log dir {later[replica]} "
                        f"instead of {target}."
                    )
            elif now[replica] == target:
                print(f"Reassignment of replica {replica} completed successfully.")
            else:
                print(
                    f"Partition {name} on broker {replica.broker} is not being moved from log dir {now[replica]} to "
                    f"{target}."
                )
        if not directories:
            print()
        return busy

    def _clear_throttles(self, plan: Plan) -> None:
        brokers = sorted(
            {*self._admin.broker_ids(), *(each for _, replicas in plan.parts for each in replicas)}
        )
        print(f"Clearing broker-level throttles on broker{_s(brokers)} {','.join(map(str, brokers))}")
        gone = sorted(set(brokers) - set(self._admin.broker_ids()))
        if gone:  # Kafka's tool asks them for a minute
            raise ToolError(f"Error: there is no broker {gone[0]} to clear throttles on", to_stdout=True)
        for broker in brokers:
            self._admin.alter_configs(BROKER, str(broker), {}, (*RATES, ALTER_DIRS_RATE))
        topics = plan.topics
        print(f"Clearing topic-level throttles on topic{_s(topics)} {','.join(topics)}")
        for topic in topics:
            self._admin.alter_configs(TOPIC, topic, {}, THROTTLED)

    # -- the others -------------------------------------------------------------------------------------------------

    def cancel(self, plan: Plan, timeout_s: float, *, keep: bool) -> None:
        ongoing = self._ongoing()
        active = [part for part in plan.replicas if part in ongoing]
        if active:
            self._reassign(dict.fromkeys(active), f"Error cancelling partition reassignment{_s(active)} for:")
            print(f"Successfully cancelled partition reassignment{_s(active)} for: {_listed(active)}")
        else:
            print("None of the specified partition reassignments are active.")
        now, later = self._directories(plan.directories)
        back = {replica: now[replica] for replica in plan.directories if replica in now and replica in later}
        if back:
            self._move(back, timeout_s)
        else:
            print("None of the specified partition moves are active.", end="", flush=True)
        if not keep:
            self._clear_throttles(plan)

    def show(self) -> None:
        ongoing = self._ongoing()
        if not ongoing:
            print("No partition reassignments found.")
            return
        print("Current partition reassignments:")
        for part in sorted(ongoing):
            state = ongoing[part]
            text = f"{part}: replicas: {','.join(map(str, state['replicas']))}."
            for name in ("adding", "removing"):
                if state[f"{name}_replicas"]:
                    text += f" {name}: {','.join(map(str, state[f'{name}_replicas']))}."
            print(text)

    def generate(self, topics: list[str], brokers: list[int], *, racks: bool) -> None:
        current = self._current(topics)
        _check_topics(topics, current)
        live = {
            broker["broker_id"]: broker["rack"] if racks else None
            for broker in self._admin.cluster()["brokers"]
        }
        chosen = {broker: live[broker] for broker in brokers if broker in live}
        if not chosen:
            why = "Error: All brokers are currently fenced, or have all their log directories cordoned."
            raise ToolError(why, to_stdout=True)
        proposed = place(current, chosen, SystemRandom())
        print(f"Current partition replica assignment\n{as_json(current, self._where(current))}\n")
        print(f"Proposed partition reassignment configuration\n{as_json(proposed, {})}")

    # -- asking -----------------------------------------------------------------------------------------------------

    def _ongoing(self) -> dict[Part, dict[str, Any]]:
        """Reassignments under way."""
        from kafka.protocol.admin import ListPartitionReassignmentsRequest

        from odradek.cli.admin import ADMIN_TIMEOUT_MS

        request = ListPartitionReassignmentsRequest(timeout_ms=ADMIN_TIMEOUT_MS, topics=None)
        answer = self._admin.send(request).to_dict()
        _check(answer)
        return {
            Part(topic["name"], each["partition_index"]): each
            for topic in answer["topics"]
            for each in topic["partitions"]
        }

    def _current(self, topics: Iterable[str]) -> dict[Part, list[int]]:
        """Replicas of all partitions of those topics that exist."""
        names = sorted(set(topics) & set(self._admin.topic_names()))
        return {
            Part(name, each["partition_index"]): list(each["replica_nodes"])
            for name, entries in (self._admin.partitions(names) if names else {}).items()
            for each in entries
        }

    def _where(self, parts: Mapping[Part, Sequence[int]]) -> dict[Replica, str]:
        """The log directories that replicas are in."""
        return self._directories([Replica(broker, *part) for part in parts for broker in parts[part]])[0]

    def _directories(self, replicas: Iterable[Replica]) -> tuple[dict[Replica, str], dict[Replica, str]]:
        """(where they are, where they are on their way to)."""
        from kafka.protocol.admin import DescribeLogDirsRequest

        now: dict[Replica, str] = {}
        later: dict[Replica, str] = {}
        by_broker: dict[int, dict[str, list[int]]] = {}
        for replica in replicas:
            by_broker.setdefault(replica.broker, {}).setdefault(replica.topic, []).append(replica.partition)
        live = self._admin.broker_ids()
        for broker, topics in by_broker.items():
            if broker not in live:
                continue
            answer = self._admin.send(DescribeLogDirsRequest(topics=list(topics.items())), broker).to_dict()
            _check(answer)
            for result in answer["results"]:
                for topic in result["topics"]:
                    for each in topic["partitions"]:
                        replica = Replica(broker, topic["name"], each["partition_index"])
                        (later if each["is_future_key"] else now)[replica] = result["log_dir"]
        return now, later


def _check(answer: Mapping[str, Any]) -> None:
    from odradek.cli.admin import ClusterError

    if answer.get("error_code"):
        raise ClusterError(answer["error_code"], answer.get("error_message"))


def _check_topics(topics: Iterable[str], current: Iterable[Part]) -> None:
    known = {part.topic for part in current}
    for topic in topics:
        if topic not in known:
            raise _not_found(f"Topic {topic} not found.")


def _not_found(what: str) -> ToolError:
    from odradek.cli.admin import ClusterError
    from odradek.wire.errors import ErrorCode

    return ToolError(
        f"Error: {ClusterError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, what).java}", to_stdout=True
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ToolError(f"Unable to read file {path}: {error.strerror}") from error


def _listed(items: Iterable[Any]) -> str:
    return ",".join(map(str, sorted(items)))


def _s(items: Any) -> str:
    return "" if len(items) == 1 else "s"
