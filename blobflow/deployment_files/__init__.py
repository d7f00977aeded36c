"""Deployment files: what Kubernetes, Compose, CI and build files name as images, and where in the file."""
