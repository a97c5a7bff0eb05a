"""
The other gateways that share a store with this one: what the keeper asks them, and what it answers them.
"""
