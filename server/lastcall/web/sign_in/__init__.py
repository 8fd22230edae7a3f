"""Signing in and out on the page, with a cookie."""
