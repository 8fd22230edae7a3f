"""What operators ask for: health, readiness and metrics, on a port of their own too."""
