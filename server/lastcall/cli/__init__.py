"""The command line: one module per command, and the options, tables and database access that they share."""
