"""Tests without I/O: the same folders as the package."""
