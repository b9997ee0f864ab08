"""Between nodes: gRPC messages (`v1`), and what every stream between two nodes has in common.

gRPC reads this setting when it is first imported, which happens in this package only. Its event engine hands each
message from thread to thread; with its older pollers the thread that waits for the socket also reads from it, and a
round trip takes 115 µs instead of 200 (README.md, "Measured"). Who sets the variable has the last word.
"""

import os

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
