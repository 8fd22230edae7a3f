"""Sessions, their rows, and the instance that owns them."""
