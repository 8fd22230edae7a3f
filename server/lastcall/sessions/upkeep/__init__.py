"""What runs beside the sessions of a server, and keeps the table true."""
