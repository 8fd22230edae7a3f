"""What is refused, and when."""
