"""Whole runs: what they begin with, how they are started, and what is asked of them afterwards."""
