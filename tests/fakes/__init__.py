"""Doubles of what blobflow talks to: registries, archives, clocks."""
