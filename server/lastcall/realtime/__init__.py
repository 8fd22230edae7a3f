"""One WebSocket connection, from its handshake to its exit path."""
