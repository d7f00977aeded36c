"""Pulling through: what is not here is fetched from an upstream registry, once, and kept."""
