"""Kafka's messages, generated: one module per API or record type. See proto/README.md."""
