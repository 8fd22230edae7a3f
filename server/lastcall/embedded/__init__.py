"""The PostgreSQL and the small model that pip installs with the server."""
