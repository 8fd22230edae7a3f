"""Makes small mistakes in a copy of the code, one at a time: each has to be seen.

Most are seen by the simulated worlds. What the fake store does not have, the SQL and `store/postgres/`, is tested on a
PostgreSQL: those mutants name the tests that see them.
"""
