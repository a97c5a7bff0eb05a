"""
Bytes both ways once the login is done: over any Twisted transport (L{mailgate.relay.portable}), or between descriptors
at the speed of the kernel (L{mailgate.relay.stream}). No byte is understood here.
"""
