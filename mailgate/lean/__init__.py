"""
Reactor services over raw descriptors: connections, listening, connecting, timers. They do what Twisted's own do, with
less CPU and memory. This package knows nothing of mail protocols.
"""
