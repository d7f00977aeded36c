"""The server's HTTP: the socket, TLS, connections, bodies, ranges, and the URLs of responses."""
