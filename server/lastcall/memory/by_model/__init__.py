"""Memories from a language model: asking for them, reading what it answers, and leaving it alone while it is away."""
