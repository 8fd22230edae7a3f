"""What every store promises: each test runs over the real one and over its fake."""
