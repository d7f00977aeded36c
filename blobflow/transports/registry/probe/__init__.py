"""Finding out by trying what a registry takes."""
