"""One conversation: its timeline, its events and its responses."""
