"""Strikes every way in which a session ends at each of its checkpoints. See `scripts/simulate --checkpoints`."""
