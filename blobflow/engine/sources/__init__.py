"""Questions to the sources: roots, the graph of manifests below them, referrers, and pull quotas."""
