"""Pushing blobs: upload methods, upload sessions, and what a push does next."""
