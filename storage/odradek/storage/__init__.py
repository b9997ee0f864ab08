"""The log engine on Kafka's disk format."""
