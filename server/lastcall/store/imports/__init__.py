"""The seam between an import and what it reads."""
