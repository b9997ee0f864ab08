"""Replication of partitions between brokers. Start reading at replication/README.md."""
