"""HTTP/1.1 on one connection: the head of a request, the handshake of a WebSocket, and the HTTP server."""
