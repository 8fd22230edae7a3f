"""What is stored of a person: to see, correct, export and erase."""
