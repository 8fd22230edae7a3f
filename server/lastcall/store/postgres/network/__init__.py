"""How connections to the database are opened and kept: hosts, their deadlines, and sockets."""

from .connector import FAILURES, Connector

__all__ = ["FAILURES", "Connector"]
