"""The server's side of HTTP: the socket, TLS, connections, bodies, ranges, and the URLs of answers."""
