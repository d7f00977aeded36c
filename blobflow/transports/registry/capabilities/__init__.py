"""Capabilities: what a registry can do, known by its name or learned from its answers."""
