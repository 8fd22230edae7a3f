"""What comes along from pip: a PostgreSQL and a small model."""
