"""ApiVersions (key 18), versions 0-4.

A version this node does not know is answered in version 0's layout with UNSUPPORTED_VERSION and the ranges served,
so that a newer client can ask again (KIP-511). The response header never has tagged fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from odradek.broker.pending import Pending, Response
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.frame import encode_response
from odradek.wire.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

if TYPE_CHECKING:
    from odradek.broker.connection import Connection
    from odradek.broker.node import Node

FLEXIBLE_FROM = 3
KRAFT_VERSION = "kraft.version"
_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def handler(node: Node) -> Any:
    """The ApiVersions handler of `node`; its bodies are encoded once per metadata image."""
    bodies: dict[int, tuple[object, bytes]] = {}

    def handle(
        connection: Connection, view: memoryview, start: int, end: int, version: int, correlation_id: int
    ) -> Response | Pending | None:
        if not 0 <= version <= ApiVersionsRequest.MAX_VERSION:
            body = ApiVersionsResponse(
                error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_ranges(node)
            ).encode(0)
            return encode_response(ApiKey.API_VERSIONS, 0, correlation_id, body)
        pos = connection.skip_header(view, start, version >= FLEXIBLE_FROM)
        request = ApiVersionsRequest.decode(view[:end], version, pos)
        if version >= FLEXIBLE_FROM:
            software = (request.client_software_name, request.client_software_version)
            if not all(map(_SOFTWARE.fullmatch, software)):
                body = ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST).encode(version)
                return encode_response(ApiKey.API_VERSIONS, version, correlation_id, body)
            connection.software = software
        known = bodies.get(version)
        if known is None or known[0] is not node.image:
            known = bodies[version] = (node.image, _body(node).encode(version))
        return encode_response(ApiKey.API_VERSIONS, version, correlation_id, known[1])

    return handle


def _ranges(node: Node) -> list[ApiVersion]:
    return [
        ApiVersion(api_key=key, min_version=versions.start, max_version=versions.stop - 1)
        for key, versions in sorted(node.advertised.items())
    ]


def _body(node: Node) -> ApiVersionsResponse:
    image = node.image
    supported = {**node.supported_features, KRAFT_VERSION: (0, 1)}
    finalized = dict(image.features)
    if (
        node.quorum.raft.voters.has_all_directories
    ):  # its level is the form of the voters, not a record of its own
        finalized[KRAFT_VERSION] = 1
    return ApiVersionsResponse(
        error_code=0,
        api_keys=_ranges(node),
        supported_features=[
            SupportedFeatureKey(name=name, min_version=low, max_version=high)
            for name, (low, high) in sorted(supported.items())
        ],
        finalized_features_epoch=image.offset,
        finalized_features=[
            FinalizedFeatureKey(name=name, max_version_level=level, min_version_level=level)
            for name, level in sorted(finalized.items())
        ],
    )
