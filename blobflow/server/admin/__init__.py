"""What those see and use who look after the registry."""
