"""Tests for L{mailgate.process.workers.zygote} with a fake system. The integration tests use real forks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from attrs import evolve, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate._version import __version__
from mailgate.process.workers.forking import System, Zygote
from mailgate.process.workers.messages import (
    Announce,
    Become,
    Begin,
    Configure,
    ControlError,
    Cut,
    Ended,
    Failed,
    Fork,
    Kill,
    Lines,
    Message,
    Order,
    Query,
    Ready,
    Reply,
    Retired,
    Started,
    Tell,
    encode,
    otherRelease,
)
from mailgate.system.exitstatus import CANNOT_SERVE


@frozen
class NotedHeirs:
    """Heirs that record the calls, for a zygote that does not really fork."""

    orders: list[Order]
    slots: list[int]
    notices: list[Announce]

    def serve(self, slot: int, channel: socket.socket) -> int:
        raise AssertionError("this is not a fork")

    def obeyed(self, order: Order) -> None:
        self.orders.append(order)

    def announced(self, notice: Announce) -> None:
        self.notices.append(notice)

    def configured(self, configuration: Configure) -> None:
        raise ControlError("unexpected")

    def lost(self, slot: int) -> None:
        self.slots.append(slot)


class ZygoteCase(SynchronousTestCase):
    """A zygote whose workers are sockets of the test."""

    def setUp(self):
        orders, self.orders = os.pipe()
        self.reports, reports = os.pipe()
        os.set_blocking(self.reports, False)
        self.obeyed: list[Order] = []
        self.lost: list[int] = []
        self.announced: list[Announce] = []
        self.killed: list[tuple[int, int]] = []
        self.dead: dict[int, int] = {}
        self.pids = iter(range(100, 200))
        self.channels: list[socket.socket] = []
        self.patch(socket, "socketpair", self.socketpair(socket.socketpair))
        self.zygote = Zygote(
            orders,
            reports,
            Lines(),
            NotedHeirs(self.obeyed, self.lost, self.announced),
            System(
                lambda: next(self.pids),
                lambda pid, options: (pid, self.dead[pid]) if pid in self.dead else (0, 0),
                lambda pid, number: self.killed.append((pid, number)),
            ),
        )
        self.lines = Lines()
        for fd in (orders, reports, self.reports):
            self.addCleanup(os.close, fd)
        self.addCleanup(self.closeOrders)

    def socketpair(self, real: Callable[[], tuple[socket.socket, socket.socket]]):
        def pair() -> tuple[socket.socket, socket.socket]:
            ours, theirs = real()
            self.addCleanup(ours.close)
            # The zygote closes its end.
            kept = theirs.dup()
            kept.setblocking(False)
            self.addCleanup(kept.close)
            self.channels.append(kept)
            return ours, theirs

        return pair

    def closeOrders(self) -> None:
        if self.orders >= 0:
            os.close(self.orders)
            self.orders = -1

    def order(self, *messages: Message) -> None:
        os.write(self.orders, b"".join(map(encode, messages)))
        self.zygote.turn(0)

    def reported(self):
        try:
            return self.lines.feed(os.read(self.reports, 65536))
        except BlockingIOError:
            return []

    def worker(self, slot: int) -> socket.socket:
        """Return the worker's end of a new worker's channel."""
        self.order(Fork(slot))
        return self.channels[-1]

    def dies(self, pid: int, status: int) -> None:
        """Let the process C{pid} exit."""
        self.dead[pid] = status
        # The first pair is the one by which SIGCHLD wakes the zygote.
        self.channels[0].send(b"\x11")
        self.zygote.turn(0)

    def heard(self, channel: socket.socket) -> list[Message]:
        try:
            return Lines().feed(channel.recv(4096))
        except BlockingIOError:
            return []


class OrderTests(ZygoteCase):
    """Messages from the master."""

    def test_fork(self):
        """An order makes the zygote fork and report the pid."""
        self.order(Fork(0), Fork(1))
        self.assertEqual(self.reported(), [Started(0, 100), Started(1, 101)])

    def test_notForked(self):
        """
        If the system refuses to fork, that is reported; no descriptor is left open, and other workers are not affected.
        """
        worker = self.worker(0)
        self.reported()

        def fork() -> int:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        self.zygote._system, works = evolve(self.zygote._system, fork=fork), self.zygote._system
        self.order(Fork(1))
        self.assertEqual(self.reported(), [Ended(1, 0, errno.EAGAIN, 0)])
        self.zygote._system = works
        self.order(Fork(1))
        self.assertEqual(self.reported(), [Started(1, 101)])
        self.assertEqual(self.heard(worker), [])

    def test_ready(self):
        """The report that a worker is ready is passed on."""
        worker = self.worker(1)
        self.reported()
        worker.send(encode(Ready()))
        self.zygote.turn(0)
        self.assertEqual(self.reported(), [Ready(1)])

    def test_retired(self):
        """The report that a worker stopped accepting is passed on with its number; later messages are read, too."""
        worker = self.worker(1)
        self.reported()
        worker.send(encode(Retired()) + encode(Cut(2)))
        self.zygote.turn(0)
        self.assertEqual(self.reported(), [Retired(1)])

    def test_told(self):
        """Each order is passed on to all workers, and to the heirs."""
        workers = [self.worker(slot) for slot in range(2)]
        self.order(Tell(Order.REOPEN))
        for worker in workers:
            self.assertEqual(self.heard(worker), [Tell(Order.REOPEN)])
        self.assertEqual(self.obeyed, [Order.REOPEN])

    def test_leaving(self):
        """After an order that ends the workers no worker is forked."""
        for order in (Order.RETIRE, Order.DRAIN, Order.STOP):
            self.order(Tell(order), Fork(0))
        self.assertEqual(self.reported(), [])

    def test_kill(self):
        """A worker is killed by its number; an unknown number kills nothing."""
        self.worker(1)
        self.order(Kill(1), Kill(0))
        self.assertEqual(self.killed, [(100, signal.SIGKILL)])

    def test_become(self):
        """The zygote changes its user, the groups first."""
        became: list[tuple[str, object]] = []
        for name in ("setgroups", "setgid", "setuid"):
            self.patch(os, name, lambda value, name=name: became.append((name, value)))
        self.order(Become(8, 9, (9, 10)))
        self.assertEqual(became, [("setgroups", (9, 10)), ("setgid", 9), ("setuid", 8)])

    def test_masterGone(self):
        """When the master has exited the workers drain, and the zygote exits after the last worker."""
        worker = self.worker(0)
        self.closeOrders()
        self.zygote.turn(0)
        self.assertEqual(self.heard(worker), [Tell(Order.DRAIN)])
        self.assertEqual(self.obeyed, [Order.DRAIN])
        self.dead[100] = 0
        self.channels[0].send(b"\x11")
        self.addCleanup(signal.signal, signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
        self.addCleanup(signal.set_wakeup_fd, signal.set_wakeup_fd(-1))
        self.assertEqual(self.zygote.run([]), 0)

    def test_nonsense(self):
        """An invalid message from the master has the same effect as its exit."""
        for message in (Begin("x", "y", {}, "00" * 32), Ready(1), Fork(0)):
            with self.subTest(message):
                self.setUp()
                worker = self.worker(0)
                self.order(message, Fork(1))
                self.assertEqual(self.heard(worker), [Tell(Order.DRAIN)])
                self.assertEqual(self.reported(), [Started(0, 100)])


class WorkerTests(ZygoteCase):
    """Messages and exits of workers."""

    def test_ended(self):
        """The exit of a worker is reported with its status or its signal."""
        self.worker(0)
        self.worker(1)
        self.reported()
        self.dies(101, signal.SIGKILL)
        self.assertEqual(self.reported(), [Ended(1, 101, -9, 0)])
        self.dies(100, 75 << 8)
        self.assertEqual(self.reported(), [Ended(0, 100, 75, 0)])
        self.assertEqual(self.lost, [1, 0])

    def test_cut(self):
        """The report includes the last message of the worker, even if it was not read before the exit."""
        worker = self.worker(0)
        self.reported()
        worker.send(encode(Cut(3)))
        self.dies(100, 75 << 8)
        self.assertEqual(self.reported(), [Ended(0, 100, 75, 3)])

    def test_again(self):
        """Its number can be used again."""
        self.worker(0)
        self.dies(100, 0)
        self.reported()
        self.worker(0)
        self.assertEqual(self.reported(), [Started(0, 101)])

    def test_closed(self):
        """A worker that closes its channel is not treated as exited."""
        worker = self.worker(0)
        self.reported()
        worker.shutdown(socket.SHUT_RDWR)
        self.zygote.turn(0)
        self.assertEqual(self.reported(), [])
        self.dies(100, 0)
        self.assertEqual(self.reported(), [Ended(0, 100, 0, 0)])

    def test_nonsense(self):
        """After an invalid message a worker is ignored; other workers are not."""
        for said in (b"\xff\n", b"x" * 2000, encode(Fork(1)), encode(Ended(0, 1, 0, 0))):
            with self.subTest(said):
                self.setUp()
                bad, good = self.worker(0), self.worker(1)
                self.reported()
                bad.send(said)
                self.zygote.turn(0)
                bad.send(encode(Ready()))
                good.send(encode(Ready()))
                self.zygote.turn(0)
                self.assertEqual(self.reported(), [Ready(1)])

    def test_announced(self):
        """A notice reaches later workers by inheritance, and those that run. Its publisher receives it as confirmed."""
        first, second = self.worker(0), self.worker(1)
        self.reported()
        notice = Announce("rest", "store/192.0.2.1:143", {"seconds": 9}, 0.5)
        second.send(encode(notice))
        self.zygote.turn(0)
        self.assertEqual(self.reported(), [evolve(notice, slot=1)])
        self.assertEqual((self.announced, self.heard(first)), ([], []))
        self.order(evolve(notice, slot=1))
        self.assertEqual(self.announced, [evolve(notice, slot=1)])
        self.assertEqual((self.heard(first), self.heard(second)), ([notice], [evolve(notice, slot=1)]))

    def test_question(self):
        """A question reaches all workers, and each answer the master, with the number of the worker."""
        first, second = self.worker(0), self.worker(1)
        self.reported()
        question = Query(5, "backend list", {})
        self.order(question)
        self.assertEqual((self.heard(first), self.heard(second)), ([question], [question]))
        reply = Reply(5, [{"sessions": 1}], True, "")
        first.send(encode(reply))
        self.zygote.turn(0)
        self.assertEqual(self.reported(), [evolve(reply, slot=0)])

    def test_lastWords(self):
        """The last message of a worker is read, even behind a long answer."""
        worker = self.worker(0)
        self.reported()
        # The zygote may wait for the master, which reads everything.
        fcntl.fcntl(self.reports, fcntl.F_SETPIPE_SZ, 1024 * 1024)
        worker.send(encode(Reply(5, ["x" * 90000], True, "")) + encode(Cut(3)))
        self.dies(100, 75 << 8)
        *_, ended = self.lines.feed(os.read(self.reports, 200000))
        self.assertEqual(ended, Ended(0, 100, 75, 3))

    def test_slow(self):
        """A worker that does not read receives everything later, and nothing of it in part."""
        worker = self.worker(0)
        notices = [Announce("rest", f"store/{number}:143", "x" * 8000, 0) for number in range(100)]
        for notice in notices:
            self.order(notice)
        heard, lines = [], Lines()
        while len(heard) < len(notices):
            heard += lines.feed(worker.recv(65536))
            self.zygote.turn(0)
        self.assertEqual(heard, notices)
        self.assertRaises(BlockingIOError, worker.recv, 1)

    def test_full(self):
        """A worker that hangs and does not read does not block the zygote."""
        worker = self.worker(0)
        for _ in range(20000):
            self.order(Tell(Order.REOPEN))
        self.assertEqual(len(self.obeyed), 20000)
        self.assertGreater(len(worker.recv(1000)), 0)


class ImportTests(SynchronousTestCase):
    """The imports of a zygote."""

    def test_noReactor(self):
        """A zygote has not imported a reactor; otherwise all workers would wait for the same events."""
        command = "import sys, mailgate.process.workers.zygote; sys.exit('twisted.internet.reactor' in sys.modules)"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.assertEqual(subprocess.run([sys.executable, "-c", command], env=environment, timeout=60).returncode, 0)

    def begun(self, module: str, orders: bytes) -> tuple[subprocess.CompletedProcess[bytes], list[Message]]:
        """Run C{module} as a zygote that receives these orders; return its report."""
        heard, ours = os.pipe()
        theirs, reports = os.pipe()
        self.addCleanup(os.close, theirs)
        os.write(ours, orders)
        # A descriptor may be 3 or 4 already.
        command = f"import os, sys; from os import dup2; dup2({reports}, 99); dup2({heard}, 3); dup2(99, 4); dup2(2, 5)"
        command += "; os.execv(sys.executable, [sys.executable, '-m', sys.argv[1]])"
        done = subprocess.run(
            [sys.executable, "-c", command, module],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=(heard, reports),
            timeout=60,
            capture_output=True,
            check=False,
        )
        for descriptor in (heard, ours, reports):
            os.close(descriptor)
        return done, Lines().feed(os.read(theirs, 65536))

    def test_otherMaster(self):
        """A master of another release is refused with a reason, whatever its messages are."""
        named = encode(Begin("x.ini", "", {}, "00" * 32)).replace(__version__.encode(), b"98.7")
        for orders, reason in (
            (named, otherRelease("98.7")),
            (b'{"kind": "begin", "file": "x.ini", "text": "", "sockets": {}, "version": 1}\n', otherRelease()),
            (b'{"kind": "start anew"}\n', otherRelease()),
        ):
            done, told = self.begun("mailgate.process.workers.zygote", orders)
            self.assertEqual((done.returncode, told), (CANNOT_SERVE, [Failed(reason)]), orders)

    def test_oldName(self):
        """
        A master of an earlier release, which starts the module by its old name, gets the reason, on standard error too.
        """
        done, told = self.begun("mailgate.zygote", b'{"kind": "begin", "file": "x.ini", "version": 1}\n')
        self.assertEqual((done.returncode, told), (CANNOT_SERVE, [Failed(otherRelease())]))
        self.assertEqual(done.stderr.decode(), f"{otherRelease()}\n")

    def test_notBegun(self):
        """A zygote whose master exits before the first message exits silently."""
        command = 'exec "$0" -m mailgate.process.workers.zygote 3</dev/null 4>/dev/null'
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            ["sh", "-c", command, sys.executable], env=environment, timeout=60, capture_output=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, b"", b""))
