"""
Bytes both ways once the login is done: over any Twisted transport (L{mailgate.relay.portable}), or between descriptors
at the speed of the kernel (L{mailgate.relay.stream}). L{mailgate.relay.base} has the rules that both follow;
L{mailgate.relay.protocol} is what a dialogue and a client are, so that a relay can take their connections over. No byte
is understood here.
"""
