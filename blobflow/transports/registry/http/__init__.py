"""HTTP with one registry host: requests, limits, retries, connections, bodies, and errors.

A request goes down this list, from who asks to the socket; its answer comes back up:

    host_client      the way in: a request with its permit and its retries, a stream, an upload
      messages  host_settings                      requests and answers; how a host is reached
      backoff                                      which requests are tried again, and when
      limiter  congestion_window  round_trip       how much may be in flight at the host
      rate_limit  minimum_rate  pull_quota         bytes and requests a second; what a host lets through
    dispatch         logins, redirects, and the wait until the host may be asked
      errors  error_body                           what an answer that is no success means
    connection_pool  one exchange, wherever it leads
      scheme_detection  proxies  tls  tls_diagnosis  aiohttp_client  aiohttp_errors
    bodies           downloads  read_ahead  socket_body  content_encoding  upload_body
    header fields    headers  cache_headers  digest_headers  etags  link_header
"""
