"""Groups of both protocols, and committed offsets: the state of one partition of `__consumer_offsets`."""
