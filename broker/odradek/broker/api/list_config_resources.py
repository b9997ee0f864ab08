"""ListConfigResources (key 74), versions 0 and 1: the names of what can be configured (KIP-1142).

Version 0 knows client metrics alone, of which there are none here; from version 1 on the types asked for, all if none
is named. Of groups, those that have a configuration of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from odradek.metadata.configs import ResourceType
from odradek.wire.errors import ErrorCode
from odradek.wire.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node
    from odradek.metadata.image import MetadataImage

ORDER = (
    ResourceType.GROUP,
    ResourceType.CLIENT_METRICS,
    ResourceType.BROKER_LOGGER,
    ResourceType.BROKER,
    ResourceType.TOPIC,
)


def list_config_resources(
    node: Node, context: RequestContext, request: ListConfigResourcesRequest, done: Done
) -> None:
    done(list_resources(node.image, request.resource_types, context.api_version))


def list_resources(image: MetadataImage, asked: list[int], version: int) -> ListConfigResourcesResponse:
    supported = ORDER if version >= 1 else (ResourceType.CLIENT_METRICS,)
    wanted = set(asked) or set(supported)
    if not wanted <= set(supported):
        return ListConfigResourcesResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
    return ListConfigResourcesResponse(
        config_resources=[
            ConfigResource(name, kind) for kind in ORDER if kind in wanted for name in _names(image, kind)
        ]
    )


def _names(image: MetadataImage, kind: ResourceType) -> list[str]:
    if kind is ResourceType.TOPIC:
        return list(image.topics)
    if kind in (ResourceType.BROKER, ResourceType.BROKER_LOGGER):
        return [str(broker.id) for broker in image.brokers.values() if not broker.fenced]
    return [
        name for (resource_type, name), values in image.configs.items() if resource_type == kind and values
    ]
