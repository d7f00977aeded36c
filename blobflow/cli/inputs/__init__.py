"""Inputs that users write, parsed into values: specs, image lists, archives, templates."""
