"""Whole clusters of real nodes on one seeded scheduler with virtual time (see chaos/README.md)."""
