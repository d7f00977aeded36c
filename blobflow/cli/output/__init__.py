"""What a person or a program reads: progress, results as text, JSON and HTML, and the standard streams."""
