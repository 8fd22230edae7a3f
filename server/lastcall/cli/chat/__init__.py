"""`lastcall chat`: a client of the Realtime API for the terminal."""
