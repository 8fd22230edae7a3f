"""What is measured beside lastcall: two servers as users would write them, and the floor. They import nothing of it."""
