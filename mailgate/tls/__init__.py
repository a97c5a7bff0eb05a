"""
TLS: the C{ssl_...} directives (L{mailgate.tls.settings}), contexts towards clients and backends, tickets, certificates,
and the engines that encrypt without a socket. How encrypted bytes reach a descriptor is L{mailgate.lean}'s.
"""
