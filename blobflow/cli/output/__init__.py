"""Output for people and programs: progress, results as text, JSON and HTML, and the standard streams."""
