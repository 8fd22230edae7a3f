"""Conversations in the seam between the server and its database."""
