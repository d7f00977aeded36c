"""Who we are at a registry: challenges, tokens, credentials."""
