"""
Tests for L{mailgate.lean.port}: cases that L{mailgate.test.lean.test_transport_contract} cannot cause, with real
sockets and a reactor that the tests drive.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.lean.poller import MOST_ROUNDS, READABLE, Poller
from mailgate.lean.port import BATCH, BREATH, LeanPort
from mailgate.lean.shares import PAUSE
from mailgate.log.seldom import PERIOD
from mailgate.test.support.descriptors import settleDescriptors
from mailgate.test.support.pollers import Owner, Reactor


class Greeting(Protocol):
    """Sends a greeting, and notes its end."""

    transport: Any
    reason: Any = None

    def connectionMade(self) -> None:
        self.transport.write(b"+OK\r\n")

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason.value


class Greetings(Factory):
    """A factory of L{Greeting}s, or of what C{build} makes."""

    noisy = False

    def __init__(self, build: Callable[[], Any] = Greeting) -> None:
        self.made: list[Any] = []
        self.stopped = 0
        self._build = build

    def buildProtocol(self, addr: Any) -> Any:
        self.made.append(self._build())
        return self.made[-1]

    def stopFactory(self) -> None:
        self.stopped += 1


class Accepting:
    """
    A listening socket whose C{accept} follows C{script}: an error to raise, or C{None} for a real connection. Then it
    counts.
    """

    def __init__(self, listening: socket.socket, script: Iterator[int | None]) -> None:
        self.calls = 0
        self._listening = listening
        self._script = script

    def _accept(self) -> Any:
        self.calls += 1
        code = next(self._script, None)
        if code is not None:
            raise OSError(code, os.strerror(code))
        return self._listening._accept()  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)


class Public:
    """A listening socket without the private C{_accept}."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def __getattr__(self, name: str) -> Any:
        if name == "_accept":
            raise AttributeError(name)
        return getattr(self._listening, name)


class Case(SynchronousTestCase):
    """A port and its clients."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    family = socket.AF_INET

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.poller = Poller(self.reactor)
        self.observer = EventLoggingObserver()
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def listen(self, factory: Factory, name: Any = ("127.0.0.1", 0)) -> LeanPort:
        """A port for C{factory}. After the test it is stopped, and must have left nothing."""
        self.bound = socket.socket(self.family)
        self.bound.bind(name)
        self.bound.listen(200)
        self.bound.setblocking(False)
        self.addCleanup(self.bound.close)
        port = LeanPort(self.poller, self.reactor, self.bound.fileno(), self.family, factory)
        self.addCleanup(self.assertLeavesNothing, port, factory)
        port.startListening()
        return port

    def assertLeavesNothing(self, port: LeanPort, factory: Any) -> None:
        port.stopListening()
        for protocol in factory.made:
            if protocol is not None and protocol.transport is not None:
                protocol.transport.abortConnection()
        self.reactor.advance(0)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def dial(self, count: int = 1) -> socket.socket:
        """Connect C{count} clients, and return the last."""
        for _ in range(count):
            far = socket.socket(self.family)
            self.addCleanup(far.close)
            far.connect(self.bound.getsockname())
            far.setblocking(False)
        return far

    def complaints(self) -> list[tuple[str, str]]:
        """The levels and reasons that ports have logged about connections that they cannot accept."""
        events = [event for event in self.observer if event["log_namespace"].startswith("mailgate.lean.port")]
        return [(event["log_level"].name, event["reason"]) for event in events if "reason" in event]


class AcceptingTests(Case):
    """Ports that accept connections."""

    def test_interface(self) -> None:
        """It provides Twisted's interface."""
        self.assertTrue(verifyObject(IListeningPort, self.listen(Greetings())))

    def test_batch(self) -> None:
        """At most one batch of connections is accepted at once."""
        factory = Greetings()
        port = self.listen(factory)
        self.dial(BATCH + 10)
        port.ready(self.bound.fileno(), READABLE)
        self.assertEqual(len(factory.made), BATCH)
        self.poller.doRead()
        self.assertEqual(len(factory.made), BATCH + 10)

    def test_noDelay(self) -> None:
        """Accepted connections have TCP_NODELAY, and know it."""
        factory = Greetings()
        self.listen(factory)
        self.dial()
        self.poller.doRead()
        transport = factory.made[0].transport
        self.assertTrue(transport.getTcpNoDelay())
        with socket.socket(fileno=os.dup(transport.fd)) as accepted:
            self.assertEqual(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        self.assertTrue(transport._noDelay)

    def test_descriptor(self) -> None:
        """Their descriptors do not block, and are not inherited."""
        factory = Greetings()
        self.listen(factory)
        self.dial()
        self.poller.doRead()
        fd = factory.made[0].transport.fd
        self.assertEqual((os.get_blocking(fd), os.get_inheritable(fd)), (False, False))

    def test_publicAccept(self) -> None:
        """On a Python without the private C{_accept} the public method is used."""
        factory = Greetings()
        port = self.listen(factory)
        listening = port._socket
        port._socket = Public(listening)  # type: ignore[assignment]
        fars = [self.dial(), self.dial()]
        self.poller.doRead()
        self.assertEqual([far.recv(10) for far in fars], [b"+OK\r\n"] * 2)
        peers = [protocol.transport.getPeer().port for protocol in factory.made]
        self.assertEqual(peers, [far.getsockname()[1] for far in fars])
        fd = factory.made[0].transport.fd
        self.assertEqual((os.get_blocking(fd), os.get_inheritable(fd)), (False, False))

    def test_unwatchable(self) -> None:
        """
        A connection that cannot be watched is closed. The error is logged once, its protocol receives nothing, and the
        next connection is accepted.
        """
        factory = Greetings()
        self.listen(factory)
        real = self.poller._epoll
        self.poller._epoll = Full(real)
        far, other = self.dial(), self.dial()
        self.poller.doRead()
        self.assertEqual((far.recv(10), other.recv(10)), (b"", b"+OK\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual((factory.made[0].transport, factory.made[0].reason), (None, None))
        self.dial()
        self.poller.doRead()
        self.assertEqual(len(factory.made), 3)

    def test_refused(self) -> None:
        """A factory that builds nothing, or raises, leaves no descriptor open."""
        settleDescriptors()
        before = len(os.listdir("/proc/self/fd"))
        outcomes = iter([None, KeyError("factory"), None, KeyError("factory")])

        def build() -> None:
            outcome = next(outcomes)
            if outcome is not None:
                raise outcome

        self.listen(Greetings(build))
        fars = [self.dial() for _ in range(4)]
        self.poller.doRead()
        self.assertEqual([far.recv(10) for far in fars], [b""] * 4)
        # The listening socket and its duplicate, the epoll, and four clients.
        self.assertEqual(len(os.listdir("/proc/self/fd")) - before, 3 + 4)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_protocolRaises(self) -> None:
        """A protocol that raises in makeConnection loses its connection. The next connections are accepted."""

        class Raising(Greeting):
            def connectionMade(self) -> None:
                raise KeyError("made")

        kinds = iter([Raising, Greeting])
        factory = Greetings(lambda: next(kinds)())
        self.listen(factory)
        far, other = self.dial(), self.dial()
        self.poller.doRead()
        self.assertEqual((far.recv(10), other.recv(10)), (b"", b"+OK\r\n"))
        self.assertIsInstance(factory.made[0].reason, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_protocolRaisesTwice(self) -> None:
        """If it raises again when it loses the connection, both exceptions are logged."""

        class Raising(Greeting):
            def connectionMade(self) -> None:
                raise KeyError("made")

            def connectionLost(self, reason: Any = None) -> None:
                raise ValueError("lost")

        kinds = iter([Raising, Greeting])
        self.listen(Greetings(lambda: next(kinds)()))
        far, other = self.dial(), self.dial()
        self.poller.doRead()
        self.assertEqual((far.recv(10), other.recv(10)), (b"", b"+OK\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class Full:
    """An C{epoll} that cannot watch another descriptor."""

    def __init__(self, epoll: Any) -> None:
        self._epoll = epoll
        self._room = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def register(self, fd: int, events: int) -> None:
        if self._room:
            raise self._room.pop()
        self._epoll.register(fd, events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class ExhaustedTests(Case):
    """A system without free descriptors or memory."""

    def scripted(self, *codes: int | None) -> tuple[Greetings, LeanPort, Accepting]:
        """A port whose C{accept} raises C{codes}."""
        factory = Greetings()
        port = self.listen(factory)
        accepting = Accepting(port._socket, iter(codes))
        port._socket = accepting  # type: ignore[assignment]
        return factory, port, accepting

    def test_rests(self) -> None:
        """The port pauses, and tries again until it succeeds. This is logged once, as an error."""
        codes = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
        for code in codes:
            factory, port, accepting = self.scripted(*[code] * 3)
            far = self.dial()
            for times in (1, 2, 3):
                for _ in range(5):
                    self.poller.doRead()
                self.reactor.advance(BREATH / 2)
                self.poller.doRead()
                self.assertEqual((accepting.calls, factory.made, port.isPaused), (times, [], True))
                self.reactor.advance(BREATH / 2)
            self.poller.doRead()
            self.assertEqual((far.recv(10), port.isPaused), (b"+OK\r\n", False))
            self.assertLeavesNothing(port, factory)
        self.assertEqual(self.complaints(), [("error", os.strerror(code)) for code in codes])

    def exhaust(self, accepting: Accepting, count: int = 1) -> None:
        """Connect C{count} times while the system has nothing left, and then let it have something."""
        calls = accepting.calls
        self.dial()
        for _ in range(count):
            self.poller.doRead()
            self.reactor.advance(BREATH)
        self.poller.doRead()
        self.assertGreater(accepting.calls, calls + count)

    def test_again(self) -> None:
        """After a quiet minute it is logged again, each time."""
        _, _, accepting = self.scripted(errno.EMFILE, None, None, errno.EMFILE, None, None, errno.ENOMEM, None)
        for seconds in (PERIOD, PERIOD * 1000, 0):
            self.exhaust(accepting)
            self.reactor.advance(seconds)
        expected = (errno.EMFILE, errno.EMFILE, errno.ENOMEM)
        self.assertEqual([reason for _, reason in self.complaints()], [os.strerror(code) for code in expected])

    def test_siege(self) -> None:
        """If it continues, or returns sooner, it is logged once."""
        count = int(2 * PERIOD)
        _, _, accepting = self.scripted(*[errno.EMFILE] * count, None, None, errno.EMFILE)
        self.exhaust(accepting, count)
        self.reactor.advance(PERIOD - 2 * BREATH)
        self.exhaust(accepting)
        self.assertEqual(len(self.complaints()), 1)

    def test_others(self) -> None:
        """Meanwhile other connections are served, and the port tries only once a turn."""
        _, _, accepting = self.scripted(errno.EMFILE)
        owner = Owner(lambda fd, _: os.read(fd, 10))
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        fd = near.detach()
        self.poller.watch(fd, owner, READABLE)
        self.dial()
        self.poller.doRead()
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual((len(owner.told), accepting.calls), (1, 1))
        self.poller.release(fd)

    def fill(self) -> int:
        """Use up all free numbers below those in use until the end of the test, and return the first free one."""
        settleDescriptors()
        first = max(map(int, os.listdir("/proc/self/fd"))) + 1
        while (filler := os.dup(self.bound.fileno())) < first:
            self.addCleanup(os.close, filler)
        os.close(filler)
        return filler

    def test_descriptors(self) -> None:
        """
        The same when this process really has no descriptor left. When it has, all waiting connections are accepted.
        """
        factory = Greetings()
        self.listen(factory)
        fars = [self.dial() for _ in range(5)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.fill() + 2, hard))
        for _ in range(3):
            self.poller.doRead()
            self.reactor.advance(BREATH)
        self.poller.doRead()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(len(factory.made), 2)
        self.assertEqual(len(self.complaints()), 1)
        self.reactor.advance(BREATH)
        self.poller.doRead()
        self.assertEqual([far.recv(10) for far in fars], [b"+OK\r\n"] * 5)
        self.assertEqual(len(self.complaints()), 1)

    def test_gone(self) -> None:
        """A connection that is closed before it is accepted is skipped, without a log line."""
        _, _, accepting = self.scripted(errno.ECONNABORTED, errno.EPERM, errno.ECONNABORTED)
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertEqual((accepting.calls, self.complaints()), (5, []))

    def test_allGone(self) -> None:
        """However many are closed, the poller's turn ends."""
        _, _, accepting = self.scripted(*[errno.ECONNABORTED] * 100 * BATCH)
        self.dial()
        self.poller.doRead()
        self.assertEqual(accepting.calls, BATCH * MOST_ROUNDS)

    def test_broken(self) -> None:
        """A listening socket that was shut down does not keep the CPU busy."""
        port = self.listen(Greetings())
        accepting = Accepting(port._socket, iter(()))
        port._socket = accepting  # type: ignore[assignment]
        self.bound.shutdown(socket.SHUT_RDWR)
        for _ in range(5):
            self.poller.doRead()
        self.assertEqual((accepting.calls, len(self.complaints())), (1, 1))

    def test_stop(self) -> None:
        """A port that is stopped meanwhile does not wake up."""
        factory, port, accepting = self.scripted(errno.EMFILE)
        far = self.dial()
        self.poller.doRead()
        self.assertIsNone(self.successResultOf(port.stopListening()))
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))
        self.reactor.advance(2 * BREATH)
        self.assertEqual((accepting.calls, factory.made, factory.stopped), (1, [], 1))
        self.assertRaises(BlockingIOError, far.recv, 1)


class StoppingTests(Case):
    """Stopping a port."""

    def test_inBuild(self) -> None:
        """If its factory stops it, the current connection is accepted, and no further one."""

        def build() -> Greeting:
            port.stopListening()
            return Greeting()

        factory = Greetings(build)
        port = self.listen(factory)
        fars = [self.dial() for _ in range(3)]
        for _ in range(3):
            self.poller.doRead()
        self.assertEqual(fars[0].recv(10), b"+OK\r\n")
        for far in fars[1:]:
            self.assertRaises(BlockingIOError, far.recv, 1)
        self.assertEqual((len(factory.made), factory.stopped), (1, 1))

    def test_duplicate(self) -> None:
        """
        If a duplicate of the socket, in another process perhaps, goes on listening, no event of it is reported, least
        of all to a new owner of the descriptor's number.
        """
        port = self.listen(Greetings())
        number = port._socket.fileno()
        port.stopListening()
        heir = Owner()
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        fd = near.detach()
        self.assertEqual(fd, number)
        self.poller.watch(fd, heir, READABLE)
        self.dial()
        self.poller.doRead()
        self.assertEqual(heir.told, [])
        self.poller.release(fd)

    def test_callersSocket(self) -> None:
        """The socket stays the caller's. Another port can be made of it."""
        self.listen(Greetings()).stopListening()
        factory = Greetings()
        port = LeanPort(self.poller, self.reactor, self.bound.fileno(), self.family, factory)
        port.startListening()
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertLeavesNothing(port, factory)

    def test_twice(self) -> None:
        """Starting or stopping twice counts as once."""
        factory = Greetings()
        port = self.listen(factory)
        port.startListening()
        for _ in range(2):
            self.assertIsNone(self.successResultOf(port.stopListening()))
        self.assertEqual(factory.stopped, 1)


class UNIXTests(Case):
    """Ports of unix sockets."""

    family = socket.AF_UNIX

    def test_fileGone(self) -> None:
        """A file that was removed before causes no error."""
        path = self.mktemp()
        port = self.listen(Greetings(), path)
        os.unlink(path)
        self.assertIsNone(self.successResultOf(port.stopListening()))

    def test_abstract(self) -> None:
        """A socket in the abstract namespace has no file, and accepts as any other."""
        factory = Greetings()
        port = self.listen(factory, b"\0mailgate-%d" % os.getpid())
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertFalse(factory.made[0].transport.getTcpNoDelay())
        self.assertIsNone(self.successResultOf(port.stopListening()))
        self.assertEqual(factory.stopped, 1)


class CourtesyTests(Case):
    """New connections that other processes could accept as well."""

    def setUp(self) -> None:
        super().setUp()
        self.factory = Greetings()
        self.large = False
        self.port = self.listen(self.factory)
        self.port.isLarge = lambda: self.large

    def arrive(self, count: int) -> None:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.port.getHost().port))  # type: ignore[attr-defined]
            self.addCleanup(client.close)

    def test_notLarge(self) -> None:
        """A process with no more connections than others accepts them at once."""
        self.arrive(1)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), 1)

    def test_large(self) -> None:
        """A process with more leaves them to others for a moment, and accepts the rest."""
        self.large = True
        self.arrive(1)
        self.poller.doRead()
        self.assertEqual(self.factory.made, [])
        self.reactor.advance(PAUSE)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), 1)

    def test_everyOne(self) -> None:
        """It does so for each connection."""
        self.port._batch = 1
        self.large = True
        self.arrive(2)
        for expected in (1, 2):
            self.poller.doRead()
            self.reactor.advance(PAUSE)
            self.poller.doRead()
            self.assertEqual(len(self.factory.made), expected)

    def test_stopped(self) -> None:
        """A port that is stopped in that moment stays stopped."""
        self.large = True
        self.arrive(1)
        self.poller.doRead()
        self.port.stopListening()
        self.reactor.advance(PAUSE)
        self.poller.doRead()
        self.assertEqual(self.factory.made, [])

    def test_batch(self) -> None:
        """A port accepts at most C{batch} connections at once."""
        self.port._batch = 1
        self.arrive(MOST_ROUNDS + 2)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), MOST_ROUNDS)
