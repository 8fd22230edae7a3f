"""How much of what later questions need comes back: `scripts/memory-bench`."""
