"""The real server in made-up worlds: many clients, virtual time, seeded order and faults. See `scripts/simulate`."""
