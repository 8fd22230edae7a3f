"""One conversation: its items, its events and its responses."""
