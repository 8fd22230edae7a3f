"""Servers that are restarted one by one under clients that chat: `python -m tests.verification.rolling`."""
