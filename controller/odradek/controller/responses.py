"""The response to a request that fails as a whole: each API puts its errors in another place."""

from __future__ import annotations

from typing import Any

from odradek.controller.internal import response_class
from odradek.wire.apis import ApiKey
from odradek.wire.errors import ErrorCode
from odradek.wire.primitives import Message


def error_response(request: Message, version: int, code: ErrorCode, message: str | None = None) -> Message:
    """`request` refused with `code`; `message` falls back to the code's own."""
    response: Any = response_class(request.API_KEY)()
    text = message or code.message
    if _refuse_items(request, version, response, code, text):
        return response  # type: ignore[no-any-return]
    response.error_code = code
    if hasattr(response, "error_message"):
        response.error_message = text
    return response  # type: ignore[no-any-return]


def _refuse_items(request: Any, version: int, response: Any, code: ErrorCode, text: str) -> bool:
    """Fill a response that has its errors beside the items of the request; False if it has one for all."""
    match request.API_KEY:
        case ApiKey.CREATE_TOPICS:
            from odradek.wire.messages.create_topics import CreatableTopicResult

            response.topics = [
                CreatableTopicResult(name=topic.name, error_code=code, error_message=text)
                for topic in request.topics
            ]
        case ApiKey.DELETE_TOPICS:
            from odradek.wire.messages.delete_topics import DeletableTopicResult

            response.responses = [
                *(
                    DeletableTopicResult(name=name, error_code=code, error_message=text)
                    for name in request.topic_names
                ),
                *(DeletableTopicResult(topic.name, topic.topic_id, code, text) for topic in request.topics),
            ]
        case ApiKey.CREATE_PARTITIONS:
            from odradek.wire.messages.create_partitions import CreatePartitionsTopicResult

            response.results = [
                CreatePartitionsTopicResult(topic.name, code, text) for topic in request.topics
            ]
        case ApiKey.ALTER_CONFIGS | ApiKey.INCREMENTAL_ALTER_CONFIGS:
            from odradek.wire.messages import alter_configs, incremental_alter_configs

            legacy = request.API_KEY == ApiKey.ALTER_CONFIGS
            result: Any = alter_configs if legacy else incremental_alter_configs
            response.responses = [
                result.AlterConfigsResourceResponse(
                    code, text, resource.resource_type, resource.resource_name
                )
                for resource in request.resources
            ]
        case ApiKey.ELECT_LEADERS:
            from odradek.wire.messages.elect_leaders import PartitionResult, ReplicaElectionResult

            response.error_code = code if version >= 1 else ErrorCode.NONE
            response.replica_election_results = [
                ReplicaElectionResult(
                    topic.topic, [PartitionResult(number, code, text) for number in topic.partitions]
                )
                for topic in request.topic_partitions or ()
            ]
        case _:
            return False
    return True
