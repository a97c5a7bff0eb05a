"""
The client's side of a session before the relay: the part that is the same for every protocol. L{mailgate.protocols}
has the commands of each protocol. L{mailgate.auth} has the authenticators; neither package imports the other.

A dialogue (L{mailgate.frontend.dialogue}) owns parts that know no connection, so tests need only bytes or a clock:
C{framing} and C{intake}, C{exchange} and C{mechanisms}, C{patience}. C{loginflow} runs a login and hands the connection
over to the relay; C{departure} ends a connection before that. A new protocol overrides C{hooks} and fills the record in
C{protocol}.
"""
