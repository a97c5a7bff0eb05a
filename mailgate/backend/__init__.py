"""
The way out: from a route to a connection that is logged in at a backend. What the three protocols say there is in
L{mailgate.protocols}.

A login is one coroutine from the client's credentials to the hand-over. L{mailgate.backend.coroutine} runs it, and the
connection to the backend resumes it with each line.
"""
