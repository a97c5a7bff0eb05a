"""
The base of scenarios for stream transports, and the two ways to connect.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.task import deferLater

from mailgate.test.support.transportends import (
    RECEIVE_BUFFER,
    HalfCloseableNear,
    Near,
    NearFactory,
    Peer,
    Source,
)

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Mixin
else:
    # Scenarios become tests only where a kind of transport and a TestCase are mixed in.
    Mixin = object


class Bench(Mixin):
    """
    The base of scenarios for a kind of transport. The C{timeout} of each test limits all waiting.

    A kind provides C{makeReactor()} and states its properties in attributes. A way to connect provides
    C{connect(near)}, which returns the socket of the other end.
    """

    timeout = 30
    patience = 10.0
    """Seconds to wait for anything: less than C{timeout}, so that the failure shows what was missing."""
    family = socket.AF_INET
    accepted = True
    """Whether the other end connected."""

    repeatsEnd: bool
    """A transport that is resumed after the end of file reports it again."""
    halfClosesTLS: bool
    """Under TLS too, each direction can end alone."""
    masksReasons: bool
    """Under TLS, a connection that this side ended is reported as L{ConnectionLost}, whatever the reason."""
    keepsDecrypted: bool
    """
    Under TLS, a transport that is paused or aborted during a delivery delivers nothing more that it has decrypted.
    """

    def makeReactor(self) -> Any:
        raise NotImplementedError

    async def connect(self, near: Near) -> socket.socket:
        raise NotImplementedError

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.clock: Any = reactor
        self.deadline = self.clock.seconds() + self.patience
        self.reactor = self.makeReactor()
        self.nears: list[Near] = []
        self.ports: list[Any] = []
        self._sockets: list[socket.socket] = []
        # The path of mktemp may be too long for a unix socket.
        self.folder = tempfile.mkdtemp()

    async def tearDown(self) -> None:  # type: ignore[override]
        """Check that in every scenario the connection is made first, and lost last and once."""
        self.deadline = self.clock.seconds() + self.patience
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        for near in self.nears:
            if near.told and "lost" not in near.told:
                near.transport.abortConnection()
                await self.assertLost(near, Exception)
        await self.turns()
        # Cleanups would close them too early.
        for each in self._sockets:
            each.close()
        shutil.rmtree(self.folder)
        for near in self.nears:
            for event, place in (("made", 0), ("lost", -1)):
                self.assertEqual([near.told.count(event), near.told[place]] if near.told else [1, event], [1, event])

    def turn(self) -> Deferred[None]:
        """Return a Deferred that fires in the reactor's next turn. Fails if the time is over."""
        if self.clock.seconds() > self.deadline:
            self.fail("It did not happen in time.")
        return deferLater(self.clock, 0, lambda: None)

    async def turns(self) -> None:
        """Wait long enough for a transport to notice what is in its socket's buffer."""
        for _ in range(20):
            await self.turn()

    async def until(self, condition: Callable[..., object], *arguments: object) -> None:
        """Wait until C{condition} of C{arguments} is true."""
        while not condition(*arguments):
            await self.turn()

    async def untilTold(self, end: Any, event: str) -> None:
        """Wait until C{end}, a L{Near} or its factory, gets the event C{event}."""
        await self.until(lambda: event in end.told)

    def makeNear(self, halfCloseable: bool = False, **reactions: Callable[[Any], object]) -> Near:
        near = (HalfCloseableNear if halfCloseable else Near)(**reactions)
        self.nears.append(near)
        return near

    def keep(self, connection: socket.socket) -> socket.socket:
        """Close C{connection} after the test."""
        self._sockets.append(connection)
        return connection

    def makeSocket(self) -> socket.socket:
        """Return a socket with a limited receive buffer. It is closed after the test."""
        made = self.keep(socket.socket(self.family))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return made

    def bind(self) -> socket.socket:
        """Return a listening socket with a new address."""
        bound = self.makeSocket()
        if self.family == socket.AF_UNIX:
            bound.bind(os.path.join(self.folder, str(len(self._sockets))))
        else:
            bound.bind(("::1" if self.family == socket.AF_INET6 else "127.0.0.1", 0))
        bound.listen(128)
        bound.setblocking(False)
        return bound

    def listen(self, factory: Any) -> tuple[Any, Any]:
        """Return a port of the reactor under test, which is stopped after the test, and its address."""
        bound = self.bind()
        address = bound.getsockname()
        port = self.reactor.adoptStreamPort(bound.fileno(), self.family, factory)
        bound.close()
        self.ports.append(port)
        return port, address

    def dial(self, address: Any) -> socket.socket:
        """Return a plain client that is connected to C{address}."""
        far = self.makeSocket()
        far.connect(address)
        return far

    def crowded(self) -> socket.socket:
        """Return a listening socket that accepts no more connections."""
        bound = self.keep(socket.socket())
        bound.bind(("127.0.0.1", 0))
        bound.listen(0)
        self.dial(bound.getsockname())
        return bound

    async def accept(self, bound: socket.socket) -> socket.socket:
        """Return the next connection of C{bound}."""
        while True:
            try:
                far, _ = bound.accept()
            except BlockingIOError:
                await self.turn()
            else:
                return self.keep(far)

    async def open(self, halfCloseable: bool = False, **reactions: Callable[[Any], object]) -> tuple[Any, Peer]:
        """Return both ends of a new connection."""
        near = self.makeNear(halfCloseable, **reactions)
        far = await self.connect(near)
        await self.until(lambda: near.told)
        return near, Peer(self.turn, far)

    async def assertLost(self, near: Any, kind: type[BaseException] | tuple[type[BaseException], ...]) -> None:
        """Check that C{near} loses its connection for a reason of C{kind}, and that the reason has a text."""
        await self.untilTold(near, "lost")
        self.assertIsInstance(near.reason, kind)
        self.assertTrue(str(near.reason))

    async def assertReset(self, peer: Peer) -> None:
        """Check that C{peer} gets a reset and no end of file, if its kind of socket has resets."""
        if self.family == socket.AF_UNIX:
            await peer.rest()
            return
        try:
            await peer.rest()
        except ConnectionResetError:
            return
        self.fail("There was an end of file.")

    async def stalled(self, source: Source) -> None:
        """Wait until C{source} makes no more progress before its end."""
        left = -1
        while left != len(source.left):
            left = len(source.left)
            await self.turns()
        self.assertGreater(left, 0)

    def assertSame(self, received: bytes | bytearray, expected: bytes) -> None:
        """Compare bytes, without printing megabytes that differ."""
        self.assertEqual(len(received), len(expected))
        self.assertTrue(received == expected, "the content differs")

    async def together(self, *doings: Any) -> list[Any]:
        """Run C{doings} concurrently, and return their results."""
        results: list[Any] = await gatherResults([ensureDeferred(each) for each in doings], consumeErrors=True)
        return results


class Accepted(Bench):
    """The end under test accepts the connection."""

    async def connect(self, near: Near) -> socket.socket:
        _, address = self.listen(NearFactory(lambda: near))
        return self.dial(address)


class Connected(Bench):
    """The end under test makes the connection."""

    accepted = False

    async def connect(self, near: Near) -> socket.socket:
        bound = self.bind()
        if self.family == socket.AF_UNIX:
            self.reactor.connectUNIX(bound.getsockname(), NearFactory(lambda: near), 20)
        else:
            self.reactor.connectTCP(*bound.getsockname(), NearFactory(lambda: near), 20)
        return await self.accept(bound)
