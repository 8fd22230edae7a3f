"""The OpenAI agent without a connection."""
