"""Faults on real clusters, what stock clients saw meanwhile, and the verdict."""
