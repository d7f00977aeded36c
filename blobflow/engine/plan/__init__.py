"""The plan as a value: the images that are wanted, the steps that bring them, what that costs."""
