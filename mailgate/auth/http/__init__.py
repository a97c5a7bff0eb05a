"""
nginx's C{auth_http}: an HTTP service judges logins. L{mailgate.auth.http.exchange} is question and answer without I/O,
L{mailgate.auth.http.agent} the HTTP client below treq.
"""
