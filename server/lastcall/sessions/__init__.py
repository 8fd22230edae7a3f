"""Rows and who owns them."""
