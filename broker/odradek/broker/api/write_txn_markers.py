"""WriteTxnMarkers (key 27), versions 1-2. Coordinators ask this of leaders on a way of their own (`between_brokers`);
here it is an operator who ends a transaction that hangs (KIP-664).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from odradek.broker.dispatch import Done, RequestContext
    from odradek.broker.node import Node
    from odradek.wire.messages.write_txn_markers import WriteTxnMarkersRequest


def write_txn_markers(
    node: Node, context: RequestContext, request: WriteTxnMarkersRequest, done: Done
) -> None:
    """Answered when the markers are committed."""
    node.txn_markers.serve(request, context.api_version, done)
