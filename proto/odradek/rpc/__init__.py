"""Between nodes: gRPC messages (`v1`), and what every stream between two nodes has in common."""
