"""What operators of the registry see and use: overview page, metrics, health, access log, file reload."""
