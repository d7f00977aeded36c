"""The plan as a value: the desired images, the steps that bring them about, and the cost."""
