"""What a session leaves behind, and what the next one begins with."""
