"""What operators do and see: acts with their audit log, and what the console shows."""
