"""KRaft-style consensus for the metadata log."""
