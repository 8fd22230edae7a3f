"""The process and the host it runs on."""
