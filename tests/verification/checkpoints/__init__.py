"""Every way in which a session ends, struck at each of its checkpoints. See `scripts/simulate --checkpoints --help`."""
