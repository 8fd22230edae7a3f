"""Authentication: who connects, and what they may do."""
