"""A broker node: connections, request handlers, partitions."""
