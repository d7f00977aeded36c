"""What became of every image: collected as steps end, and reported."""
