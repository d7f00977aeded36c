"""Pull-through: content that is not here is fetched from an upstream registry, once, and kept."""
