"""Bytes: streams, TLS, WebSocket and HTTP/1.1. Knows no sessions."""
