"""L{mailgate.net.sockets} by the name under which applications that embed a gateway import it."""

from mailgate.net.sockets import ListenError, ListeningSockets, openSocket, ownSockets

__all__ = ["ListenError", "ListeningSockets", "openSocket", "ownSockets"]
