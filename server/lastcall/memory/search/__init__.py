"""Every turn of a user's past, searchable: its words when a session is finalized, and the best turns for a question."""
