"""Traces of sessions and turns, for OpenTelemetry. Nothing of it is imported, or costs anything, unless asked for."""
