"""Kafka messages that the client library does not have, in its own form."""
