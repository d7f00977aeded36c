"""How long a test waits for what comes at once: one figure, so that no busy machine fails a test."""

# Seconds after which something hangs. Below pytest's own limit, so that the test that fails says what hangs.
HANGS_AFTER = 120.0
