"""What it costs and gains to spread the large tables over partitions."""
