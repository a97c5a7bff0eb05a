"""
The way out: from a route to a connection that is logged in at a backend. What the three protocols say there is in
L{mailgate.protocols}.
"""
