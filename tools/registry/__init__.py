"""Registries for tests and measurements: one that misbehaves as told, and one with nothing behind it."""
