"""Pushing a blob: methods, sessions, and what a push does next."""
