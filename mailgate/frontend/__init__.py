"""
The client's side of a session before the relay: the part that is the same for every protocol. L{mailgate.protocols}
has the commands of each protocol. L{mailgate.auth} has the authenticators; neither package imports the other.

A dialogue (L{mailgate.frontend.dialogue}) is made of parts that can do without a protocol, so tests need only bytes or
a clock: it inherits C{framing} and C{intake}, and C{patience}; it owns C{exchange} and C{mechanisms}. C{sasl} runs
the exchange; C{loginflow} runs a login and hands the connection over to the relay; C{departure} ends a connection
before that. A new protocol overrides C{hooks} and fills the record in C{protocol}.
"""
