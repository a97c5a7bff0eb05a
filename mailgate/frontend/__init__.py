"""
The way in: what happens on a client's connection before the relay, the same for every protocol. Who judges a login is
in L{mailgate.auth}, which neither imports nor is imported by this package; commands of one protocol are in
L{mailgate.protocols}.

A dialogue (L{mailgate.frontend.dialogue}) owns parts that know no connection, and are tested by bytes or a clock alone:
C{framing} and C{intake}, C{exchange} and C{mechanisms}, C{patience}. How it goes on at its end is in C{loginflow} and
C{departure}. A new protocol overrides C{hooks}, and is described by the record in C{protocol}.
"""
