"""What must be true of the database before the store serves: its version, its settings and our schema."""
