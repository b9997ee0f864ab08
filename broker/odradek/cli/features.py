"""`kafka-features`: the finalized feature levels of a cluster (KIP-584, KIP-1022)."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from odradek.cli.options import ToolError, ToolParser, program_name, run_tool

if TYPE_CHECKING:
    from odradek.cli.admin import Admin

METADATA_VERSION = "metadata.version"
FIRST_LEVEL = 7
RELEASES = (
    "3.3-IV3",
    "3.4-IV0",
    "3.5-IV0",
    "3.5-IV1",
    "3.5-IV2",
    "3.6-IV0",
    "3.6-IV1",
    "3.6-IV2",
    "3.7-IV0",
    "3.7-IV1",
    "3.7-IV2",
    "3.7-IV3",
    "3.7-IV4",
    "3.8-IV0",
    "3.9-IV0",
    "4.0-IV0",
    "4.0-IV1",
    "4.0-IV2",
    "4.0-IV3",
    "4.1-IV0",
    "4.1-IV1",
    "4.2-IV0",
    "4.2-IV1",
    "4.3-IV0",
    "4.4-IV0",
)
"""Names of the levels of metadata.version, from `FIRST_LEVEL` on."""
LATEST = "4.3-IV0"
SINCE = {
    "kraft.version": ("3.9-IV0",),
    "transaction.version": ("4.0-IV2", "4.0-IV2"),
    "group.version": ("4.0-IV0",),
    "eligible.leader.replicas.version": ("4.1-IV0",),
    "share.version": ("4.2-IV0",),
    "streams.version": ("4.2-IV0",),
}
"""The release from which each level, 1 and up, is the default of a feature."""
REQUIRES = {("eligible.leader.replicas.version", 1): "4.0-IV1"}

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0, or 1 with one line that says why."""
    return run_tool(run, argv)


def run(argv: list[str]) -> int:
    """Parse and execute."""
    options = build_parser().parse(argv)
    if options.command == "version-mapping":
        return version_mapping(options.release_version or LATEST)
    if options.command == "feature-dependencies":
        return dependencies(options.feature)
    updates = {} if options.command == "describe" else wanted(options)
    from odradek.cli.admin import connect

    with connect(options.bootstrap_server, options.command_config, "FeatureCommand") as admin:
        if options.command == "describe":
            describe(admin)
        else:
            update(admin, options, updates)
    return 0


def build_parser() -> ToolParser:
    parser = ToolParser(
        prog=program_name("odradek features"), description="This tool manages feature flags in Kafka."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--bootstrap-server", help="A comma-separated list of host:port pairs to connect to.")
    where.add_argument("--bootstrap-controller", dest="bootstrap_server", help=argparse.SUPPRESS)
    parser.add_argument(
        "--command-config",
        metavar="FILE",
        help="Property file containing configs to be passed to Admin Client.",
    )
    parser.add_version()
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("describe", help="Describes the current active feature flags.")
    upgrade = commands.add_parser("upgrade", help="Upgrade one or more feature flags.")
    downgrade = commands.add_parser("downgrade", help="Downgrade one or more feature flags.")
    disable = commands.add_parser(
        "disable",
        help="Disable one or more feature flags. This is the same as downgrading the version to zero.",
    )
    for command in (upgrade, downgrade):
        command.add_argument("--metadata", metavar="VERSION", help="DEPRECATED -- The level of the metadata.")
        command.add_argument(
            "--release-version", metavar="VERSION", help="The release version to update all features to."
        )
    for command in (upgrade, downgrade, disable):
        command.add_argument(
            "--feature",
            action="append",
            help="A feature, in feature=level format where a level is asked for.",
        )
        command.add_argument("--dry-run", action="store_true", help="Validate, but do not perform it.")
    for command in (downgrade, disable):
        command.add_argument(
            "--unsafe", action="store_true", help="Even if it may irreversibly destroy metadata."
        )
    mapping = commands.add_parser(
        "version-mapping", help="Look up the corresponding features for a given metadata version."
    )
    mapping.add_argument(
        "--release-version", metavar="VERSION", help=f"The release version; default {LATEST}."
    )
    depends = commands.add_parser(
        "feature-dependencies", help="Look up dependencies for a given feature version."
    )
    depends.add_argument(
        "--feature", action="append", required=True, help="The feature, in feature=version format."
    )
    return parser


# -- on paper --------------------------------------------------------------------------------------------------------


def level_of(release: str) -> int:
    """The level of metadata.version; `4.3` is the last of its release."""
    for number in range(len(RELEASES) - 1, -1, -1):
        if RELEASES[number] == release or RELEASES[number].startswith(f"{release}-IV"):
            return FIRST_LEVEL + number
    raise ToolError(
        f"Unknown metadata.version '{release}'. Supported metadata.version are: {', '.join(RELEASES)}"
    )


def level_text(feature: str, level: int) -> str:
    """A level as it is shown: metadata's by its release."""
    if feature != METADATA_VERSION:
        return str(level)
    known = FIRST_LEVEL <= level < FIRST_LEVEL + len(RELEASES)
    return RELEASES[level - FIRST_LEVEL] if known else f"UNKNOWN {level}"


def defaults(metadata_level: int) -> dict[str, int]:
    """The level of each other feature that comes with a level of metadata.version."""
    return {
        feature: sum(level_of(release) <= metadata_level for release in releases)
        for feature, releases in SINCE.items()
    }


def version_mapping(release: str) -> int:
    level = level_of(release)
    print(f"{METADATA_VERSION}={level} ({release})")
    for feature, default in defaults(level).items():
        print(f"{feature}={default}")
    return 0


def dependencies(features: Sequence[str]) -> int:
    for text in features:
        name, level = name_and_level(text)
        if name == METADATA_VERSION:
            if level_text(name, level).startswith("UNKNOWN"):
                raise ToolError(f"Unknown metadata.version {level}")
            print(f"{name}={level} ({level_text(name, level)}) has no dependencies.")
            continue
        if name not in SINCE:
            raise ToolError(f"Unknown feature: {name}")
        if not 0 <= level <= len(SINCE[name]):
            raise ToolError(f"No feature:{name} with feature level {level}")
        needed = REQUIRES.get((name, level))
        if needed is None:
            print(f"{name}={level} has no dependencies.")
        else:
            print(f"{name}={level} requires:\n    {METADATA_VERSION}={level_of(needed)} ({needed})")
    return 0


def name_and_level(text: str) -> tuple[str, int]:
    """`feature=level`."""
    name, equals, level = (part.strip() for part in text.partition("="))
    if not equals:
        raise ToolError(f"Can't parse feature=level string {text}: equals sign not found.")
    try:
        number = int(level)
        if not -32_768 <= number <= 32_767:
            raise ValueError
    except ValueError:
        raise ToolError(
            f"Can't parse feature=level string {text}: unable to parse {level} as a short."
        ) from None
    return name, number


def wanted(options: Namespace) -> dict[str, int]:
    """The levels that the command line asks for."""
    levels: dict[str, int] = {}
    release = getattr(options, "release_version", None)
    metadata = getattr(options, "metadata", None)
    if release is not None:
        if metadata is not None or options.feature:
            raise ToolError("Can not specify `release-version` with other feature flags.")
        level = level_of(release)
        levels = {METADATA_VERSION: level}
        # An upgrade to 0 is no upgrade.
        levels |= {name: at for name, at in defaults(level).items() if at or options.command != "upgrade"}
        return levels
    if metadata is not None:
        print(" `metadata` flag is deprecated and may be removed in a future release.")
        levels[METADATA_VERSION] = level_of(metadata)
    for text in options.feature or ():
        name, level = (text, 0) if options.command == "disable" else name_and_level(text)
        if name in levels:
            raise ToolError(f"Feature {name} was specified more than once.")
        levels[name] = level
    if not levels:
        raise ToolError(f"You must specify at least one feature to {options.command}")
    return levels


# -- of a cluster ----------------------------------------------------------------------------------------------------


def describe(admin: Admin) -> None:
    """What is supported and finalized, by name."""
    from kafka.protocol.metadata import ApiVersionsRequest

    request = ApiVersionsRequest(
        client_software_name="odradek-tools", client_software_version="1", min_version=3
    )
    answer = admin.send(request).to_dict()
    finalized = {each["name"]: each["max_version_level"] for each in answer["finalized_features"]}
    epoch = answer["finalized_features_epoch"]
    for each in sorted(answer["supported_features"], key=lambda each: str(each["name"])):
        name = each["name"]
        columns = (
            ("Feature", name, 42),
            ("SupportedMinVersion", level_text(name, each["min_version"]), 17),
            ("SupportedMaxVersion", level_text(name, each["max_version"]), 17),
            ("FinalizedVersionLevel", level_text(name, finalized.get(name, 0)), 17),
        )
        print(
            "".join(f"{title}: {value.ljust(width)}" for title, value, width in columns)
            + f"Epoch: {epoch if epoch >= 0 else '-'}"
        )


def update(admin: Admin, options: Namespace, levels: Mapping[str, int]) -> None:
    """Ask for all, say for each what came of it."""
    kind = UPGRADE
    if options.command != "upgrade":
        kind = UNSAFE_DOWNGRADE if options.unsafe else SAFE_DOWNGRADE
    failures = send_update(admin, levels, kind, options.dry_run)
    doing = options.command
    for name, level in sorted(levels.items()):
        if name in failures:
            what = f"disable {name}" if doing == "disable" else f"{doing} {name} to {level}"
            print(f"{'Can not' if options.dry_run else 'Could not'} {what}. {failures[name]}")
        else:
            verb = "can be" if options.dry_run else "was"
            print(f"{name} {verb} {'disabled.' if doing == 'disable' else f'{doing}d to {level}.'}")
    if failures:
        raise ToolError(f"{len(failures)} out of {len(levels)} operation(s) failed.")


def send_update(admin: Admin, levels: Mapping[str, int], kind: int, dry_run: bool) -> dict[str, str]:
    """UpdateFeatures; what is wrong, by feature."""
    from kafka.protocol.admin import UpdateFeaturesRequest as Request

    from odradek.cli.admin import ADMIN_TIMEOUT_MS, ClusterError

    request = Request(
        timeout_ms=ADMIN_TIMEOUT_MS,
        feature_updates=[
            Request.FeatureUpdateKey(feature=name, max_version_level=level, upgrade_type=kind)
            for name, level in levels.items()
        ],
        validate_only=dry_run,
        min_version=1,
    )
    answer: dict[str, Any] = admin.send(request).to_dict()
    if answer["error_code"]:
        said = ClusterError(answer["error_code"], answer["error_message"]).said
        return dict.fromkeys(levels, said)
    return {
        each["feature"]: ClusterError(each["error_code"], each["error_message"]).said
        for each in answer.get("results") or []
        if each["error_code"]
    }
