"""
TLS: the C{ssl_…} directives for clients (L{mailgate.tls.settings}) and the trust directives for backends
(L{mailgate.tls.backendsettings}), OpenSSL contexts, session tickets, certificate checks, and the engines that encrypt
and decrypt in memory. L{mailgate.lean} moves the encrypted bytes between an engine and a socket.
"""
