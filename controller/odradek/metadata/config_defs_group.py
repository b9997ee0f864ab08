"""Kafka 4.3's configurations of groups (ConfigResource GROUP): those of consumer groups, which are what is served.

Each stands in for a broker's, and has to lie between the broker's bounds for it.
"""

from __future__ import annotations

from odradek.metadata.config_def import ConfigType, define

GROUP_DEFS = (
    define("consumer.assignment.interval.ms", ConfigType.INT, 1000, low=0),
    define("consumer.heartbeat.interval.ms", ConfigType.INT, 5000, low=1),
    define("consumer.session.timeout.ms", ConfigType.INT, 45000, low=1),
)
