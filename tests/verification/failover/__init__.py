"""A primary that is stopped, killed or frozen under clients that chat: `python -m tests.verification.failover`."""
