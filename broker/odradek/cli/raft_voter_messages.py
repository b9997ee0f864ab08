"""AddRaftVoter and RemoveRaftVoter for the client library, from the schemas beside this file."""

from __future__ import annotations

from kafka.protocol.api_message import ApiMessage

SCHEMAS = "odradek.cli.schemas"


class AddRaftVoterRequest(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass


class AddRaftVoterResponse(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass


class RemoveRaftVoterRequest(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass


class RemoveRaftVoterResponse(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass
