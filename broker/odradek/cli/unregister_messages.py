"""UnregisterBroker for the client library, from the schemas beside this file."""

from __future__ import annotations

from kafka.protocol.api_message import ApiMessage

from odradek.cli.raft_voter_messages import SCHEMAS


class UnregisterBrokerRequest(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass


class UnregisterBrokerResponse(ApiMessage, load_json=SCHEMAS):  # type: ignore[call-arg, misc]
    pass
