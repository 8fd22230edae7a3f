"""All interleavings of the SQL: all orders of the lifecycle's statements, and pairs of them at the same moment."""
