"""What a simulator replaces: the disk, the clock, timers."""
