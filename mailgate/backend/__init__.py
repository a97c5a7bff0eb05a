"""
The backend's side of a session: from a route to a connection that is logged in at a backend. L{mailgate.protocols} has
the commands of each protocol.

A login is one coroutine, from the client's credentials to the hand-over. L{mailgate.backend.coroutine} runs it, and
each line from the backend resumes it.
"""
