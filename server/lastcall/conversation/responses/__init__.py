"""The responses of a session: who makes them, what they take, what comes of them."""
