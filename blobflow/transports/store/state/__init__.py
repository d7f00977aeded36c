"""The state file: its schema, its connections, and its transactions."""
