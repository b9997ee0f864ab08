"""Cluster metadata: records, image, delta, configuration definitions."""
