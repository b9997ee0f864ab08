"""Kafka's APIs: keys, versions, header versions, and their message classes, imported when asked for.

Names and ranges are those of Apache Kafka 4.3's message definitions; what a node *advertises* is its own
affair.
"""

from functools import cache
from importlib import import_module
from typing import cast

from odradek.wire.messages._registry import APIS as APIS
from odradek.wire.messages._registry import ApiInfo as ApiInfo
from odradek.wire.messages._registry import ApiKey as ApiKey
from odradek.wire.primitives import Message


@cache
def request_class(api_key: int) -> type[Message]:
    """Class of the request; `KeyError` for a key that Kafka 4.3 does not know."""
    return _class(api_key, "Request")


@cache
def response_class(api_key: int) -> type[Message]:
    """Class of the response; `KeyError` for a key that Kafka 4.3 does not know."""
    return _class(api_key, "Response")


def _class(api_key: int, kind: str) -> type[Message]:
    api = APIS[api_key]
    module = import_module(f"odradek.wire.messages.{api.module}")
    return cast("type[Message]", getattr(module, api.name + kind))


def request_header_version(api_key: int, version: int) -> int:
    """2 for the flexible versions of a request and 1 before, also where the version itself is unknown."""
    api = APIS.get(api_key)
    return 2 if api is not None and version >= api.flexible_from else 1


def response_header_version(api_key: int, version: int) -> int:
    """1 for the flexible versions of a response and 0 before.

    Always 0 for ApiVersions: the client that asks cannot know yet whether the node speaks flexible versions.
    """
    if api_key == ApiKey.API_VERSIONS:
        return 0
    api = APIS.get(api_key)
    return 1 if api is not None and version >= api.flexible_from else 0
