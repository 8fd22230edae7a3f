"""Byte streams, TLS, WebSocket and HTTP/1.1; nothing here knows of sessions."""
