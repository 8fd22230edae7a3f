"""lastcall: a Trio chat server that never leaves a session open."""

__version__ = "0.1.0"
