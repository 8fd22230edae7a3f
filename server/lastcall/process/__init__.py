"""The process: its ports, its database, and the workers that share them."""
