"""HTTP with one registry host: requests, limits, retries, connections, bodies, and errors."""
