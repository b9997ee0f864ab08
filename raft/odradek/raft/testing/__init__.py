"""Test tools that ship with the core: a replica on an in-memory disk, and a seeded cluster of them."""
