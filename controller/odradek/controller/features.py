"""Feature levels: UpdateFeatures v0–2 (KIP-584), and what the first controller of a new cluster writes."""

from __future__ import annotations

from collections import Counter

from odradek.controller.settings import METADATA_VERSION, SUPPORTED_FEATURES
from odradek.controller.state import ControllerState, Decision
from odradek.metadata.image import BROKER_RESOURCE
from odradek.metadata.records import ConfigRecord, FeatureLevelRecord, Record
from odradek.wire.errors import ErrorCode, KafkaError
from odradek.wire.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
MIN_ISR = "min.insync.replicas"


def bootstrap(state: ControllerState) -> list[Record]:
    """Records of an empty log: everything served is finalized, and min.insync.replicas becomes cluster
    metadata, as the ELR needs one value that all controllers agree on.
    """
    records: list[Record] = [FeatureLevelRecord(name, high) for name, (_, high) in SUPPORTED_FEATURES.items()]
    min_isr = state.config.static_configs.get(MIN_ISR, "1")
    return [*records, ConfigRecord(BROKER_RESOURCE, "", MIN_ISR, min_isr)]


def update_features(state: ControllerState, request: UpdateFeaturesRequest, version: int) -> Decision:
    """Change finalized levels, all or none. Errors: INVALID_UPDATE_VERSION, INVALID_REQUEST (a feature
    twice).
    """
    counts = Counter(update.feature for update in request.feature_updates)
    if any(count > 1 for count in counts.values()):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "The request names a feature more than once.")
    records: list[Record] = []
    for update in request.feature_updates:
        reason = _refusal(state, update, version)
        if reason is not None:
            why = (
                "The update failed for all features since the following feature had an error: "
                f"Invalid update version {update.max_version_level} for feature {update.feature}. {reason}"
            )
            raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, why)
        records.append(FeatureLevelRecord(update.feature, update.max_version_level))
    response = UpdateFeaturesResponse(error_message=None)
    if version < 2:
        response.results = [UpdatableFeatureResult(update.feature) for update in request.feature_updates]
    return Decision([] if request.validate_only else records, response)


def _refusal(state: ControllerState, update: FeatureUpdateKey, version: int) -> str | None:
    """Why a feature cannot get this level; None if it can."""
    upgrade_type = update.upgrade_type
    if version == 0:
        upgrade_type = SAFE_DOWNGRADE if update.allow_downgrade else UPGRADE
    level = update.max_version_level
    if upgrade_type not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if level < 0:
        return "A feature version cannot be less than 0."
    present = state.image.features.get(update.feature, 0)
    unsupported = _unsupported(state, update.feature, level)
    if unsupported is not None:
        return unsupported
    if level < present and upgrade_type == UPGRADE:
        return (
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or "
            "unsafe downgrade."
        )
    if level > present and upgrade_type != UPGRADE:
        return "Can't downgrade to a newer version."
    return None


def _unsupported(state: ControllerState, feature: str, level: int) -> str | None:
    """Who cannot work at this level: this controller, or the first such broker."""
    ranges = [(f"Local controller {state.config.node_id}", SUPPORTED_FEATURES.get(feature))]
    ranges += [(f"Broker {each.id}", each.features.get(feature)) for each in state.image.brokers.values()]
    for who, supported in ranges:
        if supported is None:
            if level or feature == METADATA_VERSION:
                return f"{who} does not support this feature."
        elif not supported[0] <= level <= supported[1]:
            low, high = supported
            return f"{who} only supports versions {low if low == high else f'{low}-{high}'}"
    return None
