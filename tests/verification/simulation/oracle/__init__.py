"""Decides whether a world kept the promises, from its tables, its clients and its faults; the server is never asked."""
