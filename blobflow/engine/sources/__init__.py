"""What the sources say: roots, the graph of manifests below them, referrers, and how much may be read."""
