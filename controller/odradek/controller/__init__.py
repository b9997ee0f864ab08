"""The active controller: decide, then replay."""
