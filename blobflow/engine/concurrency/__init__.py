"""Many requests at once: bounded, deduplicated, and processed as their answers come."""
