"""One HTTP exchange with a registry host, and what all exchanges share."""
