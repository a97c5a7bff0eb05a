"""
Tests for L{mailgate.lean.poller} with real descriptors and a reactor that the tests drive.
L{mailgate.test.lean.test_reactor} runs it under Twisted's reactors.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.lean.poller import MOST_EVENTS, MOST_ROUNDS, READABLE, WRITABLE, Poller
from mailgate.test.support.pollers import Owner, Reactor

HUNG_UP: int = getattr(select, "EPOLLHUP", 16)


class Counted:
    """An C{epoll} that counts its calls, and the events of each."""

    def __init__(self, epoll: Any) -> None:
        self.polls = 0
        self.events = 0
        self._epoll = epoll

    def poll(self, timeout: float, most: int) -> Any:
        self.polls += 1
        events = self._epoll.poll(timeout, most)
        self.events += len(events)
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class Case(SynchronousTestCase):
    """A poller, and connections for it."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.poller = Poller(self.reactor)
        self._owned: set[int] = set()
        self.addCleanup(self.releaseAll)

    def open(self) -> tuple[int, socket.socket]:
        """A connection: the descriptor of our end, and the other end."""
        near, far = socket.socketpair()
        near.setblocking(False)
        self.addCleanup(far.close)
        return near.detach(), far

    def watched(self, owner: Owner, events: int = READABLE) -> tuple[int, socket.socket]:
        """A connection that C{owner} owns."""
        fd, far = self.open()
        self.poller.watch(fd, owner, events)
        self._owned.add(fd)
        return fd, far

    def releaseAll(self) -> None:
        for fd in list(self._owned):
            self.release(fd)

    def release(self, fd: int) -> None:
        self._owned.remove(fd)
        self.poller.release(fd)

    def noting(self, order: list[int], what: int) -> Callable[[int, int], None]:
        """What an owner does that reads, and adds C{what} to C{order}."""

        def ready(fd: int, _: int) -> None:
            os.read(fd, 10)
            order.append(what)

        return ready

    def counted(self) -> Counted:
        """Start counting calls."""
        counted = Counted(self.poller._epoll)
        self.poller._epoll = counted
        return counted

    def assertClosed(self, fd: int) -> None:
        self.assertRaises(OSError, os.fstat, fd)

    def assertOpen(self, fd: int) -> None:
        os.fstat(fd)


class ReadinessTests(Case):
    """Which owner receives which events."""

    def test_interface(self) -> None:
        """It is a reader for a reactor."""
        self.watched(Owner())
        self.assertTrue(verifyObject(IReadDescriptor, self.poller))
        self.assertEqual(self.poller.logPrefix(), "mailgate")

    def test_owner(self) -> None:
        """An owner receives the events of its own descriptor only."""
        one, other = Owner(lambda fd, _: os.read(fd, 10)), Owner()
        fd, far = self.watched(one)
        self.watched(other)
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual((one.told, other.told), ([(fd, READABLE)], []))

    def test_idle(self) -> None:
        """Without events no owner is called, and the reactor continues after one call."""
        owner = Owner()
        self.watched(owner)
        counted = self.counted()
        self.poller.doRead()
        self.assertEqual((owner.told, counted.polls), ([], 1))

    def test_levelTriggered(self) -> None:
        """Unread bytes are reported again."""
        owner = Owner(lambda fd, _: os.read(fd, 1))
        _, far = self.watched(owner)
        far.send(b"abc")
        self.poller.doRead()
        self.assertEqual(len(owner.told), 3)

    def test_lateTransfer(self) -> None:
        """If a descriptor gets a new owner while its event waits in the batch, the new owner receives the event."""
        heir = Owner(lambda fd, _: os.read(fd, 1))
        fds: list[int] = []

        def bequeath(fd: int, _: int) -> None:
            os.read(fd, 1)
            self.poller.owners[fds[fds.index(fd) - 1]] = heir

        testator = Owner(bequeath)
        for _ in range(2):
            fd, far = self.watched(testator)
            far.send(b"x")
            fds.append(fd)
        self.poller.doRead()
        self.assertEqual((len(testator.told), len(heir.told)), (1, 1))

    def test_change(self) -> None:
        """An owner does not receive events that it does not wait for."""
        owner = Owner()
        fd, far = self.watched(owner)
        far.send(b"x")
        for before, after, told in (
            (READABLE, 0, None),
            (0, WRITABLE, WRITABLE),
            (WRITABLE, 0, None),
            (0, READABLE | WRITABLE, READABLE | WRITABLE),
            (READABLE | WRITABLE, READABLE, READABLE),
        ):
            owner.told.clear()
            self.poller.change(fd, before, after)
            self.poller.doRead()
            self.assertEqual(set(owner.told), {(fd, told)} if told is not None else set())

    def test_nothingWanted(self) -> None:
        """A descriptor that waits for nothing does not even report its end."""
        owner = Owner()
        fd, far = self.watched(owner)
        self.poller.change(fd, READABLE, 0)
        far.close()
        counted = self.counted()
        self.poller.doRead()
        self.assertEqual((owner.told, counted.polls), ([], 1))
        self.poller.change(fd, 0, READABLE)
        self.poller.doRead()
        self.assertTrue(owner.told[0][1] & HUNG_UP)

    def test_releasedUnwanted(self) -> None:
        """A descriptor that waits for nothing can be released, and its number reused."""
        fd, far = self.watched(Owner())
        self.poller.change(fd, READABLE, 0)
        far.send(b"x")
        self.release(fd)
        heir = Owner()
        again, _ = self.watched(heir)
        self.assertEqual(again, fd)
        self.poller.doRead()
        self.assertEqual(heir.told, [])

    def test_many(self) -> None:
        """More descriptors than one call returns are all served in one turn."""
        owner = Owner(lambda fd, _: os.read(fd, 10))
        fds = []
        for _ in range(MOST_EVENTS + 44):
            fd, far = self.watched(owner)
            far.send(b"x")
            fds.append(fd)
        counted = self.counted()
        self.poller.doRead()
        self.assertEqual(sorted(fd for fd, _ in owner.told), sorted(fds))
        self.assertEqual(counted.polls, 3)

    def test_bounded(self) -> None:
        """A descriptor that is always ready does not block the reactor."""
        owner = Owner()
        _, far = self.watched(owner)
        far.send(b"x")
        counted = self.counted()
        self.poller.doRead()
        self.assertEqual((len(owner.told), counted.polls), (MOST_ROUNDS, MOST_ROUNDS))


class ReleaseTests(Case):
    """Releasing descriptors."""

    def test_outside(self) -> None:
        """Between batches a descriptor is closed at once."""
        fd, far = self.watched(Owner())
        self.release(fd)
        self.assertClosed(fd)
        self.assertEqual(far.recv(1), b"")

    def test_inside(self) -> None:
        """During a batch it stays open, so that its number is not reused, and is closed after the batch."""
        opened: list[int] = []

        def leave(fd: int, _: int) -> None:
            os.read(fd, 10)
            self.release(fd)
            self.assertOpen(fd)
            opened.append(self.open()[0])
            self.addCleanup(os.close, opened[0])

        fd, far = self.watched(Owner(leave))
        far.send(b"x")
        self.poller.doRead()
        self.assertClosed(fd)
        self.assertNotIn(fd, opened)
        self.assertEqual(far.recv(1), b"")

    def test_close(self) -> None:
        """A poller without descriptors closes its epoll. Watching again makes another."""
        fd, _ = self.watched(Owner())
        own = self.poller.fileno()
        self.poller.close()
        self.assertOpen(own)
        self.release(fd)
        self.assertClosed(own)
        self.poller.close()
        owner = Owner(lambda fd, _: os.read(fd, 10))
        fd, far = self.watched(owner)
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual(owner.told, [(fd, READABLE)])

    def test_closeInside(self) -> None:
        """During a batch it does so after the batch."""

        def leave(fd: int, _: int) -> None:
            self.release(fd)
            self.poller.close()
            self.assertOpen(own)

        _, far = self.watched(Owner(leave))
        own = self.poller.fileno()
        far.send(b"x")
        self.poller.doRead()
        self.assertClosed(own)

    def test_stale(self) -> None:
        """
        The first connection of a batch releases all others, and opens and watches as many new ones. Neither the old nor
        the new owners receive the old events.
        """
        count = 20
        old, new = [Owner() for _ in range(count)], [Owner() for _ in range(count)]
        fds: list[int] = []
        replaced: list[int] = []

        def replace(fd: int, _: int) -> None:
            os.read(fd, 10)
            for other in fds:
                if other != fd:
                    self.release(other)
            replaced.extend(self.watched(owner)[0] for owner in new)

        for owner in old:
            owner._react = replace
            fd, far = self.watched(owner)
            far.send(b"x")
            fds.append(fd)
        self.poller.doRead()
        self.assertEqual(sum(len(owner.told) for owner in old), 1)
        self.assertEqual([owner.told for owner in new], [[]] * count)
        self.assertEqual(set(replaced) & set(fds), set())
        self.assertEqual(sum(_isOpen(fd) for fd in fds), 1)

    def test_reusedLater(self) -> None:
        """In the next batch the numbers are free again, and the new owners receive their events."""
        heirs: list[Owner] = []
        fd, far = self.watched(Owner(lambda fd, _: self.release(fd)))
        far.send(b"x")
        self.poller.doRead()
        heirs.append(Owner(lambda fd, _: os.read(fd, 10)))
        again, far = self.watched(heirs[0])
        self.assertEqual(again, fd)
        far.send(b"y")
        self.poller.doRead()
        self.assertEqual(heirs[0].told, [(fd, READABLE)])

    def test_reader(self) -> None:
        """The poller is a reader of the reactor only while it watches descriptors."""
        self.assertEqual(self.reactor.readers, [])
        one, _ = self.watched(Owner())
        self.assertEqual(self.reactor.readers, [self.poller])
        other, _ = self.watched(Owner())
        self.release(one)
        self.assertEqual(self.reactor.readers, [self.poller])
        self.release(other)
        self.assertEqual(self.reactor.readers, [])
        last, _ = self.watched(Owner())
        self.assertEqual((self.reactor.readers, self.reactor.added), ([self.poller], 2))
        self.release(last)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def test_unwatchable(self) -> None:
        """A descriptor that the system cannot watch stays the caller's."""
        fd = os.open(os.devnull, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        self.assertRaises(OSError, self.poller.watch, fd, Owner(), READABLE)
        self.assertOpen(fd)
        self.assertEqual(self.reactor.readers, [])


class ErrorTests(Case):
    """Owners that raise."""

    def test_error(self) -> None:
        """An exception is logged once and passed to its owner once. The others of the batch are served."""

        def trouble(fd: int, _: int) -> None:
            os.read(fd, 10)
            raise KeyError("trouble")

        owners = [Owner(lambda fd, _: os.read(fd, 10)), Owner(trouble), Owner(lambda fd, _: os.read(fd, 10))]
        for owner in owners:
            _, far = self.watched(owner)
            far.send(b"x")
        self.poller.doRead()
        self.assertEqual([len(owner.told) for owner in owners], [1, 1, 1])
        self.assertEqual([len(owner.failures) for owner in owners], [0, 1, 0])
        self.assertIsInstance(owners[1].failures[0].value, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_errorInFailed(self) -> None:
        """An exception in C{failed} does not affect the others, either."""

        class Hopeless(Owner):
            def failed(self, failure: Failure) -> None:
                release(fd)
                raise ValueError("hopeless")

        def trouble(fd: int, _: int) -> None:
            raise KeyError("trouble")

        release = self.release

        owner, other = Hopeless(trouble), Owner(lambda fd, _: os.read(fd, 10))
        fd, far = self.watched(owner)
        far.send(b"x")
        _, far = self.watched(other)
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual(len(other.told), 1)
        self.assertClosed(fd)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_errorOfTestator(self) -> None:
        """If an owner passes on its descriptor and then raises, the new owner closes it."""
        heir = Owner(lambda fd, _: os.read(fd, 10))

        def bequeath(fd: int, _: int) -> None:
            self.poller.owners[fd] = heir
            raise KeyError("trouble")

        testator = Owner(bequeath)
        _, far = self.watched(testator)
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual((len(testator.failures), len(heir.failures)), (0, 1))

    def test_errorAndRelease(self) -> None:
        """A descriptor that is released by an owner that then raises is closed."""

        def trouble(fd: int, _: int) -> None:
            self.release(fd)
            raise KeyError("trouble")

        fd, far = self.watched(Owner(trouble))
        far.send(b"x")
        self.poller.doRead()
        self.assertClosed(fd)
        self.flushLoggedErrors(KeyError)


class SoonTests(Case):
    """Postponed calls."""

    def test_inside(self) -> None:
        """During a batch a call is made right after the batch."""
        calls: list[str] = []

        def ready(fd: int, _: int) -> None:
            os.read(fd, 10)
            calls.append("ready")
            self.poller.soon(lambda: calls.append("soon"))

        for _ in range(2):
            _, far = self.watched(Owner(ready))
            far.send(b"x")
        self.poller.doRead()
        self.assertEqual(calls, ["ready", "ready", "soon", "soon"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_outside(self) -> None:
        """Outside of a batch calls are made in the reactor's next turn, once and in order."""
        calls: list[int] = []
        for number in range(3):
            self.poller.soon(lambda number=number: calls.append(number))  # type: ignore[misc]
        self.assertEqual(calls, [])
        self.reactor.advance(0)
        self.assertEqual(calls, [0, 1, 2])
        self.reactor.advance(0)
        self.assertEqual((calls, self.reactor.getDelayedCalls()), ([0, 1, 2], []))

    def test_batchBetween(self) -> None:
        """A batch before that turn makes the calls."""
        calls: list[str] = []
        _, far = self.watched(Owner(lambda fd, _: os.read(fd, 10)))
        self.poller.soon(lambda: calls.append("soon"))
        far.send(b"x")
        self.poller.doRead()
        self.assertEqual(calls, ["soon"])
        self.reactor.advance(0)
        self.assertEqual(calls, ["soon"])

    def test_within(self) -> None:
        """A call that a postponed call adds is made after all others, in the same turn."""
        calls: list[str] = []

        def first() -> None:
            calls.append("first")
            self.poller.soon(lambda: calls.append("third"))

        self.poller.soon(first)
        self.poller.soon(lambda: calls.append("second"))
        self.reactor.advance(0)
        self.assertEqual(calls, ["first", "second", "third"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_again(self) -> None:
        """A call that is added later has its own turn."""
        calls: list[int] = []
        for number in range(2):
            self.poller.soon(lambda number=number: calls.append(number))  # type: ignore[misc]
            self.reactor.advance(0)
            self.assertEqual(calls[-1], number)

    def test_release(self) -> None:
        """Descriptors that it releases are closed after all calls."""
        fd, _ = self.watched(Owner())
        self.poller.soon(lambda: self.release(fd))
        self.poller.soon(lambda: self.assertOpen(fd))
        self.reactor.advance(0)
        self.assertClosed(fd)

    def test_error(self) -> None:
        """An exception is logged, and the next call is made."""
        calls: list[str] = []
        self.poller.soon(lambda: 1 // 0)
        self.poller.soon(lambda: calls.append("soon"))
        self.reactor.advance(0)
        self.assertEqual(calls, ["soon"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ShutdownTests(Case):
    """The reactor stops."""

    def test_disconnected(self) -> None:
        """When the reactor drops the poller, each owner receives one failure."""
        owners = [Owner(), Owner()]
        for owner in owners:
            self.watched(owner)
        reason = Failure(ConnectionError())
        self.poller.connectionLost(reason)
        self.assertEqual([owner.failures for owner in owners], [[reason], [reason]])

    def test_disconnectedError(self) -> None:
        """An owner that raises then does not affect the others."""

        class Hopeless(Owner):
            def failed(self, failure: Failure) -> None:
                super().failed(failure)
                raise ValueError("hopeless")

        owners = [Hopeless(), Hopeless()]
        for owner in owners:
            self.watched(owner)
        self.poller.connectionLost(Failure(ConnectionError()))
        self.assertEqual([len(owner.failures) for owner in owners], [1, 1])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


def _isOpen(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
