"""The items of a conversation in order, and the context that an agent is given of them."""

from .context import Context
from .entry import ConversationEntry, bytes_of, text_of
from .timeline import ROOT, NoFreePosition, Timeline, UnknownItem

__all__ = ["ROOT", "Context", "ConversationEntry", "NoFreePosition", "Timeline", "UnknownItem", "bytes_of", "text_of"]
