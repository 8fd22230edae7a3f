"""What a fact is: whose words, about what, in which language, and without secrets. Pure."""
