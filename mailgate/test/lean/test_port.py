"""
Tests for L{mailgate.lean.port}: what L{mailgate.test.lean.test_transport_contract} cannot have happen to a port, on
real sockets with a reactor that does nothing by itself.
"""

from __future__ import annotations

import errno
import gc
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
from mailgate.test.support.pollers import Owner, Reactor


class Greeting(Protocol):
    """Says hello, and knows how it ends."""

    transport: Any
    reason: Any = None

    def connectionMade(self) -> None:
        self.transport.write(b"+OK\r\n")

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason.value


class Greetings(Factory):
    """Makes L{Greeting}s, unless C{build} makes something else."""

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
    A listening socket whose C{accept} does in turn what is in C{script}, an error to raise or C{None} for what really
    has come, and then counts on.
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
    """A listening socket without what is private in it."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def __getattr__(self, name: str) -> Any:
        if name == "_accept":
            raise AttributeError(name)
        return getattr(self._listening, name)


class Case(SynchronousTestCase):
    """A port, and who wants in."""

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
        """A port for C{factory}, which is stopped after the test, and then has left nothing behind."""
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
        """Somebody who wants in, or C{count} of them; gives the last."""
        for _ in range(count):
            far = socket.socket(self.family)
            self.addCleanup(far.close)
            far.connect(self.bound.getsockname())
            far.setblocking(False)
        return far

    def complaints(self) -> list[tuple[str, str]]:
        """What ports have logged of connections that cannot be accepted: how bad that is, and why."""
        events = [event for event in self.observer if event["log_namespace"].startswith("mailgate.lean.port")]
        return [(event["log_level"].name, event["reason"]) for event in events if "reason" in event]


class AcceptingTests(Case):
    """Those who are let in."""

    def test_interface(self) -> None:
        """It is a port as Twisted's."""
        self.assertTrue(verifyObject(IListeningPort, self.listen(Greetings())))

    def test_batch(self) -> None:
        """As many as a batch holds are accepted at once, and no more: then others have their turn."""
        factory = Greetings()
        port = self.listen(factory)
        self.dial(BATCH + 10)
        port.ready(self.bound.fileno(), READABLE)
        self.assertEqual(len(factory.made), BATCH)
        self.poller.doRead()
        self.assertEqual(len(factory.made), BATCH + 10)

    def test_noDelay(self) -> None:
        """Connections are made not to delay small writes, and know it."""
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
        """Their descriptors do not block, and are left to no child."""
        factory = Greetings()
        self.listen(factory)
        self.dial()
        self.poller.doRead()
        fd = factory.made[0].transport.fd
        self.assertEqual((os.get_blocking(fd), os.get_inheritable(fd)), (False, False))

    def test_publicAccept(self) -> None:
        """Where Python's sockets have no private C{_accept} the public one does as well."""
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
        A connection that the system accepts but cannot watch is closed, with an error that is logged once; its protocol
        hears nothing of it, and the next is accepted.
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
        """A factory that makes nothing, or raises, leaves no descriptor."""
        # What other tests have left to the collector must not be closed in the middle of this one.
        gc.collect()
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
        # Both ends of the listening socket, its epoll, and four clients.
        self.assertEqual(len(os.listdir("/proc/self/fd")) - before, 3 + 4)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)

    def test_protocolRaises(self) -> None:
        """A protocol that raises as soon as it is connected loses its connection; those behind it are let in."""

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


class Full:
    """An C{epoll} that has no room for one."""

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
    """A system that has nothing left for one more."""

    def scripted(self, *codes: int | None) -> tuple[Greetings, LeanPort, Accepting]:
        """A port whose C{accept} meets C{codes}."""
        factory = Greetings()
        port = self.listen(factory)
        accepting = Accepting(port._socket, iter(codes))
        port._socket = accepting  # type: ignore[assignment]
        return factory, port, accepting

    def test_rests(self) -> None:
        """It is asked for no more for a moment, and then again, by and by; that is said once, and cannot be missed."""
        codes = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
        for code in codes:
            factory, port, accepting = self.scripted(*[code] * 3)
            far = self.dial()
            for times in (1, 2, 3):
                for _ in range(5):
                    self.poller.doRead()
                self.reactor.advance(BREATH / 2)
                self.poller.doRead()
                self.assertEqual((accepting.calls, factory.made), (times, []))
                self.reactor.advance(BREATH / 2)
            self.poller.doRead()
            self.assertEqual(far.recv(10), b"+OK\r\n")
            self.assertLeavesNothing(port, factory)
        self.assertEqual(self.complaints(), [("error", os.strerror(code)) for code in codes])

    def exhaust(self, accepting: Accepting, count: int = 1) -> None:
        """Somebody wants in when the system has nothing left, C{count} times, and then it has."""
        calls = accepting.calls
        self.dial()
        for _ in range(count):
            self.poller.doRead()
            self.reactor.advance(BREATH)
        self.poller.doRead()
        self.assertGreater(accepting.calls, calls + count)

    def test_again(self) -> None:
        """After a quiet minute it is said again, as often as that happens."""
        _, _, accepting = self.scripted(errno.EMFILE, None, None, errno.EMFILE, None, None, errno.ENOMEM, None)
        for seconds in (PERIOD, PERIOD * 1000, 0):
            self.exhaust(accepting)
            self.reactor.advance(seconds)
        expected = (errno.EMFILE, errno.EMFILE, errno.ENOMEM)
        self.assertEqual([reason for _, reason in self.complaints()], [os.strerror(code) for code in expected])

    def test_siege(self) -> None:
        """Where it goes on, or comes again sooner, it is said once."""
        count = int(2 * PERIOD)
        _, _, accepting = self.scripted(*[errno.EMFILE] * count, None, None, errno.EMFILE)
        self.exhaust(accepting, count)
        self.reactor.advance(PERIOD - 2 * BREATH)
        self.exhaust(accepting)
        self.assertEqual(len(self.complaints()), 1)

    def test_others(self) -> None:
        """Meanwhile those who are connected are served, and the poller asks the system in vain but once a turn."""
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
        """Have no number free below those in use, until the test is over; gives the first that is."""
        # What other tests have left to the collector must not become free in the middle of this one.
        gc.collect()
        first = max(map(int, os.listdir("/proc/self/fd"))) + 1
        while (filler := os.dup(self.bound.fileno())) < first:
            self.addCleanup(os.close, filler)
        os.close(filler)
        return filler

    def test_descriptors(self) -> None:
        """So it is when this process has really no descriptor left; once it has, all who wait are let in."""
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
        """One that has left before it was let in is passed over, and the next is let in at once; nothing is said."""
        _, _, accepting = self.scripted(errno.ECONNABORTED, errno.EPERM, errno.ECONNABORTED)
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertEqual((accepting.calls, self.complaints()), (5, []))

    def test_allGone(self) -> None:
        """However many have left, the poller's turn ends."""
        _, _, accepting = self.scripted(*[errno.ECONNABORTED] * 100 * BATCH)
        self.dial()
        self.poller.doRead()
        self.assertEqual(accepting.calls, BATCH * MOST_ROUNDS)

    def test_broken(self) -> None:
        """A listening socket that somebody else has shut is not asked on and on either."""
        port = self.listen(Greetings())
        accepting = Accepting(port._socket, iter(()))
        port._socket = accepting  # type: ignore[assignment]
        self.bound.shutdown(socket.SHUT_RDWR)
        for _ in range(5):
            self.poller.doRead()
        self.assertEqual((accepting.calls, len(self.complaints())), (1, 1))

    def test_stop(self) -> None:
        """A port that is stopped meanwhile does not wake up again."""
        factory, port, accepting = self.scripted(errno.EMFILE)
        far = self.dial()
        self.poller.doRead()
        self.assertIsNone(self.successResultOf(port.stopListening()))
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))
        self.reactor.advance(2 * BREATH)
        self.assertEqual((accepting.calls, factory.made, factory.stopped), (1, [], 1))
        self.assertRaises(BlockingIOError, far.recv, 1)


class StoppingTests(Case):
    """The end of a port."""

    def test_inBuild(self) -> None:
        """Stopped by its factory, it lets in the one that was asked for, and nobody who comes behind him."""

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
        Though the socket of which it is a duplicate, or another process's, goes on listening, nothing is told any more
        of who comes there; least of all to who has got its descriptor's number.
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
        """The socket it was made of stays the caller's: another port can be made of it."""
        self.listen(Greetings()).stopListening()
        factory = Greetings()
        port = LeanPort(self.poller, self.reactor, self.bound.fileno(), self.family, factory)
        port.startListening()
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertLeavesNothing(port, factory)

    def test_twice(self) -> None:
        """It may be started and stopped twice, which counts as once."""
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
        """A file that somebody has removed before is not missed."""
        path = self.mktemp()
        port = self.listen(Greetings(), path)
        os.unlink(path)
        self.assertIsNone(self.successResultOf(port.stopListening()))

    def test_abstract(self) -> None:
        """A socket in the abstract namespace has no file, and lets in as any other."""
        factory = Greetings()
        port = self.listen(factory, b"\0mailgate-%d" % os.getpid())
        far = self.dial()
        self.poller.doRead()
        self.assertEqual(far.recv(10), b"+OK\r\n")
        self.assertFalse(factory.made[0].transport.getTcpNoDelay())
        self.assertIsNone(self.successResultOf(port.stopListening()))
        self.assertEqual(factory.stopped, 1)


class CourtesyTests(Case):
    """Newcomers that other processes could let in as well."""

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
        """Who has no more than others lets them in at once."""
        self.arrive(1)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), 1)

    def test_large(self) -> None:
        """Who has more leaves them to others for a moment; if nobody wanted them, they are let in then."""
        self.large = True
        self.arrive(1)
        self.poller.doRead()
        self.assertEqual(self.factory.made, [])
        self.reactor.advance(PAUSE)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), 1)

    def test_everyOne(self) -> None:
        """For each that is let in others are asked anew."""
        self.port._batch = 1
        self.large = True
        self.arrive(2)
        for expected in (1, 2):
            self.poller.doRead()
            self.reactor.advance(PAUSE)
            self.poller.doRead()
            self.assertEqual(len(self.factory.made), expected)

    def test_stopped(self) -> None:
        """One that stops listening in that moment listens no more."""
        self.large = True
        self.arrive(1)
        self.poller.doRead()
        self.port.stopListening()
        self.reactor.advance(PAUSE)
        self.poller.doRead()
        self.assertEqual(self.factory.made, [])

    def test_batch(self) -> None:
        """A port lets in no more at once than it was told to."""
        self.port._batch = 1
        self.arrive(MOST_ROUNDS + 2)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), MOST_ROUNDS)
