"""Frameworks above the protocol, unmodified, each in a program of its own that runs in .venv-frameworks."""
