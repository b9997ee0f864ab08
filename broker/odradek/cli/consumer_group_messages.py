"""ConsumerGroupDescribe for the client library, from the schemas beside this file."""

from __future__ import annotations

from kafka.protocol.api_message import ApiMessage

SCHEMAS = "odradek.cli.schemas"


class ConsumerGroupDescribeRequest(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass


class ConsumerGroupDescribeResponse(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass
