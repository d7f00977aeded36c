"""What people write to say what they want, as values: specs, lists, archives, templates."""
