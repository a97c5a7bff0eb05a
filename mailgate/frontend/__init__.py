"""
The way in: what happens on a client's connection before the relay, the same for every protocol. Who judges a login is
in L{mailgate.auth}, which neither imports nor is imported by this package; commands of one protocol are in
L{mailgate.protocols}.
"""
