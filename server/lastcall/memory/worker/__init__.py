"""Processes that work for the server: what takes them long costs neither its event loop nor other sessions."""
