"""Results: the state of every image, collected as steps end, and the report."""
