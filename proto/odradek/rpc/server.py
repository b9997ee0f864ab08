"""The gRPC server of a node: who may call, and which service serves the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from odradek.rpc.callers import Callers
from odradek.rpc.framing import MalformedFrame
from odradek.rpc.identity import Mismatch, NodeIdentity
from odradek.rpc.peers import GREET
from odradek.rpc.settings import server_options
from odradek.rpc.streams import Call, LocalNode, StreamBroken

Serve = Callable[[NodeIdentity, Call], Awaitable[None]]
"""Serves one stream until it ends. The caller is who it should be. May raise MalformedFrame and StreamBroken."""

_Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Method:
    """One streaming method: `/package.Service/Name`."""

    path: str
    serve: Serve


class NodeServer:
    """Create with its methods, `start` on the running loop, `stop`.

    `on_caller(node_id)` is called when a peer has said who it is, `on_lost(node_id)` when a stream of it has ended.
    """

    def __init__(
        self,
        node: LocalNode,
        methods: list[Method],
        *,
        on_caller: Callable[[int], object] = lambda _id: None,
        on_lost: Callable[[int], object] = lambda _id: None,
    ) -> None:
        self._node = node
        self._methods = [*methods, Method(GREET, _greet)]
        self._on_caller = on_caller
        self._on_lost = on_lost
        self._server: grpc.aio.Server | None = None
        self._callers = Callers(node.me)
        self._stopping = False

    async def start(self, host: str, port: int) -> int:
        """Listen, on every address if `host` is empty; the port. OSError if it cannot be had."""
        server = grpc.aio.server(options=server_options(self._node.settings))
        for method in self._methods:
            _, service, name = method.path.split("/")
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
                self._handler(method.serve)
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        where = f"[{host}]" if ":" in host else host or "[::]"
        try:
            bound = server.add_insecure_port(f"{where}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {host or '*'}:{port}: {error}") from error
        await server.start()
        self._server = server
        return bound

    async def stop(self) -> None:
        """Take no more calls and end those that are left."""
        self._stopping = True
        if self._server is not None:
            await self._server.stop(self._node.settings.stop_ms / 1000)
            self._server = None

    def _handler(self, serve: Serve) -> Any:
        async def handle(_requests: object, context: _Context) -> None:
            try:
                caller = self._node.meet(context.invocation_metadata() or ())
                self._callers.admit(caller)
            except Mismatch as mismatch:
                if self._callers.is_news(str(mismatch), asyncio.get_running_loop().time()):
                    self._node.warn("another node was refused", peer=context.peer(), reason=str(mismatch))
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(mismatch))
            try:
                await context.send_initial_metadata(self._node.introduction())
                if caller.node_id != self._node.me.node_id:
                    self._on_caller(caller.node_id)
                await serve(caller, context)
            except MalformedFrame as mistake:
                self._node.warn(
                    "another node sent what makes no sense", node=caller.node_id, reason=str(mistake)
                )
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(mistake))
            except (StreamBroken, grpc.RpcError, grpc.aio.BaseError):
                pass  # the caller knows
            except Exception as error:  # noqa: BLE001 - our bug: the loop's handler decides
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a stream of another node was not served", "exception": error}
                )
            finally:
                self._callers.ended(caller)
                if not self._stopping and caller.node_id != self._node.me.node_id:
                    asyncio.get_running_loop().call_soon(self._on_lost, caller.node_id)

        return handle


async def _greet(_caller: NodeIdentity, _call: Call) -> None:
    """The handshake was all."""
