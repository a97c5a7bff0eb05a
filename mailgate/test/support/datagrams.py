"""
A reactor whose datagrams are kept in memory, and messages of name servers for it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorUDP, IUDPTransport
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from zope.interface import implementer

__all__ = ["DatagramReactor", "FakeDatagramPort", "reply"]


@implementer(IListeningPort, IUDPTransport)
class FakeDatagramPort:
    """
    A bound UDP socket. C{sent} are the datagrams with their destinations. Hosts in C{unreachable} cannot be reached.
    """

    def __init__(self, reactor: DatagramReactor, port: int, protocol: Any, interface: str) -> None:
        self.reactor = reactor
        self.number = port
        self.interface = interface
        self.protocol = protocol
        self.sent: list[tuple[bytes, Any]] = []
        self.isOpen = True

    def startListening(self) -> None:
        self.protocol.makeConnection(self)

    def stopListening(self) -> Deferred[None]:
        self.isOpen = False
        stopped: Deferred[None] = Deferred()
        self.reactor.callLater(0, stopped.callback, None)
        return stopped

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        assert self.isOpen and addr is not None
        if addr[0] in self.reactor.unreachable:
            raise OSError(101, "Network is unreachable")
        self.sent.append((packet, addr))

    def connect(self, host: str, port: int) -> None:
        raise NotImplementedError

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", self.interface or "0.0.0.0", self.number)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        raise NotImplementedError

    def getBroadcastAllowed(self) -> bool:
        return False

    def receive(self, data: bytes, sender: tuple[str, int]) -> None:
        """Deliver C{data} from C{sender}. After closing, nothing is delivered, as with a real socket."""
        if self.isOpen:
            self.protocol.datagramReceived(data, sender)


@implementer(IReactorUDP)
class DatagramReactor(MemoryReactorClock):
    """
    C{ports} are all sockets that were ever bound. Each attempt to bind fails with the next error in C{taken}, if there
    is one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.advance(1000)
        self.ports: list[FakeDatagramPort] = []
        self.taken: list[OSError] = []
        self.unreachable: set[str] = set()

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> FakeDatagramPort:
        if self.taken:
            raise CannotListenError(interface, port, self.taken.pop(0))
        bound = FakeDatagramPort(self, port, protocol, interface)
        bound.startListening()
        self.ports.append(bound)
        return bound

    @property
    def open(self) -> list[FakeDatagramPort]:
        """The sockets that are not closed."""
        return [port for port in self.ports if port.isOpen]

    @property
    def sent(self) -> list[tuple[str, int, str]]:
        """The queries: the server, the type and the name of each."""
        queries = []
        for port in self.ports:
            for wire, (host, _) in port.sent:
                asked = parsed(wire).queries[0]
                queries.append((host, asked.type, asked.name.name.decode("latin-1")))
        return queries

    def answer(self, name: bytes, *records: Any, **fields: Any) -> None:
        """Answer all pending queries for C{name} that ask for the type of one of C{records}, or for C{type}."""
        types = {fields.pop("type", None), *(record.TYPE for record in records)}
        for port in self.open:
            wire, server = port.sent[-1]
            asked = parsed(wire).queries[0]
            if asked.name.name == name and (types == {None} or asked.type in types):
                port.receive(reply(wire, *records, **fields), server)


def parsed(wire: bytes) -> dns.Message:
    """Parse the message C{wire}."""
    message = dns.Message()
    message.fromStr(wire)
    return message


def reply(wire: bytes, *records: Any, ttl: int = 60, code: int = dns.OK, cut: bool = False, **changes: Any) -> bytes:
    """Return a name server's answer to the query C{wire}. C{changes} are attributes of the message that are wrong."""
    question = parsed(wire)
    answer = dns.Message(question.id, answer=1, rCode=code, trunc=cut, maxSize=0)
    answer.queries = question.queries
    name = question.queries[0].name.name if question.queries else b""
    answer.answers = [dns.RRHeader(name, record.TYPE, ttl=ttl, payload=record) for record in records]
    for attribute, value in changes.items():
        setattr(answer, attribute, value)
    return answer.toStr()
