"""Options that verbs share, each group read into one frozen value."""
