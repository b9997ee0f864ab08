"""AlterConfigs (key 33, versions 0-2), IncrementalAlterConfigs (key 44, versions 0-1): the controller answers, after
what only this broker can judge of its own configuration: which log directories there are to be cordoned, and what the
log cleaner may become.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from odradek.broker.api.forwarded import to_controller
from odradek.broker.cleaner_checks import cleaner_refusal
from odradek.broker.cordoned import CORDONED, cordon_refusal, cordoned_names
from odradek.metadata.image import BROKER_RESOURCE
from odradek.wire.errors import ErrorCode
from odradek.wire.messages import alter_configs as legacy
from odradek.wire.messages import incremental_alter_configs as incremental

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node

SET, DELETE, APPEND = 0, 1, 2
Refused = dict[int, str]
"""Why, by the place of the resource in the request."""


def incremental_alter_configs(
    node: Node, context: RequestContext, request: incremental.IncrementalAlterConfigsRequest, done: Done
) -> None:
    """A resource that is refused here does not keep the others from the controller."""
    refused = {}
    for at, resource in enumerate(request.resources):
        changes = {
            config.name: None if config.config_operation == DELETE else config.value
            for config in resource.configs
            if config.config_operation in (SET, DELETE, APPEND)
        }
        if why := _refusal(node, resource.resource_type, resource.resource_name, changes):
            refused[at] = why
    names = [(each.resource_type, each.resource_name) for each in request.resources]
    request.resources = [each for at, each in enumerate(request.resources) if at not in refused]

    def answered(response: incremental.IncrementalAlterConfigsResponse) -> None:
        for at in sorted(refused):
            said = incremental.AlterConfigsResourceResponse(
                ErrorCode.INVALID_REQUEST, refused[at], *names[at]
            )
            response.responses.insert(at, said)
        done(response)

    _ask(node, context, request, refused, answered, incremental.IncrementalAlterConfigsResponse())


def alter_configs(
    node: Node, context: RequestContext, request: legacy.AlterConfigsRequest, done: Done
) -> None:
    """The same of the older API."""
    refused = {}
    for at, resource in enumerate(request.resources):
        present = node.image.configs.get((resource.resource_type, resource.resource_name), {})
        changes: dict[str, str | None] = dict.fromkeys(present)
        changes |= {config.name: config.value for config in resource.configs}
        if why := _refusal(node, resource.resource_type, resource.resource_name, changes):
            refused[at] = why
    names = [(each.resource_type, each.resource_name) for each in request.resources]
    request.resources = [each for at, each in enumerate(request.resources) if at not in refused]

    def answered(response: legacy.AlterConfigsResponse) -> None:
        for at in sorted(refused):
            said = legacy.AlterConfigsResourceResponse(ErrorCode.INVALID_REQUEST, refused[at], *names[at])
            response.responses.insert(at, said)
        done(response)

    _ask(node, context, request, refused, answered, legacy.AlterConfigsResponse())


def _ask(
    node: Node, context: RequestContext, request: Any, refused: Refused, answered: Done, nothing: Any
) -> None:
    if refused and not request.resources:
        answered(nothing)
    else:
        to_controller(node, context, request, answered)


def _refusal(node: Node, kind: int, resource: str, changes: Mapping[str, str | None]) -> str | None:
    """`changes`: values by name; None takes one away."""
    if kind != BROKER_RESOURCE or resource not in ("", str(node.config.node_id)):
        return None
    if resource and (value := changes.get(CORDONED)):
        known = {*node.config.log_dirs, *(path for path, _ in node.log_directories())}
        why = cordon_refusal(cordoned_names(value), known)
        if why:
            return f"requirement failed: {why}"
    layers = node.config.layers(node.image.configs)
    return cleaner_refusal(layers, changes, for_all=not resource, is_enabled=node.compaction.is_enabled)
