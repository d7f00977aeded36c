"""Transfer: the states of steps, their schedule and permits, how blobs are staged, and what is retried."""
