"""Every interleaving of the SQL: all orders of the lifecycle's statements, and what they do at the same moment."""
