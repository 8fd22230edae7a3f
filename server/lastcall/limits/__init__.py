"""Limits on callers and sessions."""
