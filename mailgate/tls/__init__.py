"""
TLS: the directives towards clients (L{mailgate.tls.settings}) and backends (L{mailgate.tls.backendsettings}), contexts
for both, tickets, certificates, and the engines that encrypt without a socket. How encrypted bytes reach a descriptor
is L{mailgate.lean}'s.
"""
