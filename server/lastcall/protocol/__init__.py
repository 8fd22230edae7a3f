"""The wire: events, items, ids and errors. No I/O."""
