"""Where the database is: URLs and key=value strings as psql takes them, its environment, service and password files."""

from .address import DatabaseAddress, DatabaseHost, TcpOptions
from .conninfo import BadAddress
from .printing import url_for_tools, without_secrets
from .reading import read_address

__all__ = [
    "BadAddress",
    "DatabaseAddress",
    "DatabaseHost",
    "TcpOptions",
    "read_address",
    "url_for_tools",
    "without_secrets",
]
