"""
nginx's C{auth_http}: an HTTP service judges logins. L{mailgate.auth.http.exchange} translates logins into requests and
responses into answers, without I/O. L{mailgate.auth.http.agent} is the HTTP client below treq.
"""
