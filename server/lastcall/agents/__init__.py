"""Agents: who answers. Authors of agents import from here."""
