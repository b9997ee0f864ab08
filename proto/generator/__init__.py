"""Generator of `odradek.wire.messages` from the message definitions in Kafka's jars."""
