"""Saved plans: written by one run, then checked, compared with the targets, and carried out by another."""
