"""Probing: finds out what a registry supports by trying."""
