"""A blob that is read by several ranges at once: over a line that carries less a connection than this machine
could take. See `ranges.stream`."""
