"""The HTTP side: health, metrics, what is remembered of a user, and the chat page."""
