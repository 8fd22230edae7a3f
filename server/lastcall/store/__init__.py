"""The database: the seam, the group-commit writer and the SQL."""
