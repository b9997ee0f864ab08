"""Kafka's wire protocol: messages, framing, record batches, errors, compression."""
