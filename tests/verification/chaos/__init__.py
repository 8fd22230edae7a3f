"""`scripts/chaos`: real servers, a real PostgreSQL and real clients under a seeded schedule of faults; an audit."""
