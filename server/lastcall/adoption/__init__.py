"""Takes over the sessions of another table: which column is what, when each session really ended, and the import."""
