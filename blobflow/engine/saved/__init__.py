"""A plan that outlives its run: saved, checked, compared with what the targets have by now."""
