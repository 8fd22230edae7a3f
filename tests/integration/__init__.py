"""Tests in one process, on real PostgreSQL and real sockets."""
