"""
Moves bytes both ways after the login, over any Twisted transport (L{mailgate.relay.portable}) or between raw
descriptors (L{mailgate.relay.stream}). L{mailgate.relay.base} has the rules that both follow.
L{mailgate.relay.protocol} is the base class of protocols whose connections a relay can take over. The relay does not
parse the bytes.
"""
