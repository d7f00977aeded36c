"""Carrying out steps: their states, their schedule, how bytes are staged, and what is tried again."""
