"""Many requests at once: bounded, asked once, and taken up as their answers come."""
