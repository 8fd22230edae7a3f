"""The real server in simulated worlds: many clients, virtual time, a seeded order of tasks, and faults."""
