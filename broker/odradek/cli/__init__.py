"""Command line: odradek and Kafka's own tool names."""
