"""Cluster metadata: records, image, delta, publishers, configuration definitions."""
