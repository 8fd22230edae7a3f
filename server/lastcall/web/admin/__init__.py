"""`/v1/admin/…`: what operators see and do. The console is a client of it."""
