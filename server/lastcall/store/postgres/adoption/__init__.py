"""Tables of others: reading them, and making room for ours beside them."""

from .table import TableSource, open_table
from .target import TargetState, prepare_target

__all__ = ["TableSource", "TargetState", "open_table", "prepare_target"]
