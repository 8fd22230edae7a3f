"""What `lastcall doctor` shows, and a start warns of: each check stands with what it checks, and here is their list."""
