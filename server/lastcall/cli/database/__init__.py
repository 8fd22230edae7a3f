"""The commands about the database itself: its tables, and its URL."""
