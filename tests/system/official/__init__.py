"""The official clients, unmodified, each in a program of its own; and what drives these programs from a test."""
