# -*- test-case-name: mailgate.test.integration.test_nobodydropped -*-
"""
A busy day of a gateway with several workers: reloads, killed workers and an upgrade, with logged-in users and new
clients. Only sessions of killed workers end.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence

from mailgate.cli.main import main
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.gateway import FOREGROUND
from mailgate.test.integration.procfs import children, inodes, pairOf, runs, servedBy, serving, state
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import ACCEPTED, PASSWORD, QUIT, USER
from mailgate.test.integration.site import PROTOCOLS, TLS, Address
from mailgate.test.integration.upgrading import UpgradeTestCase

WORKERS = 3
SESSIONS = 200
"""A third each of IMAP in IDLE, POP3 and SMTP, half of them with TLS."""
CRASHES = 5
RELOADS_BETWEEN = 2
UPGRADE_AFTER = 2
"""Killed workers."""

LATEST = 24
"""The number of new clients between two kills."""

PAUSE = 0.05
"""Seconds between two new clients of one kind."""

MANNERS = ("plain", "starttls", "plain", "implicit")
"""The same for clients that stay, one after the other."""


class Newcomers:
    """
    Clients that log in and leave again and again, one at a time for each of C{addresses}.

    @ivar well: an entry for each client that was served.
    @ivar unwell: all others: when it connected, its ports, and what went wrong.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.well: list[str] = []
        self.unwell: list[tuple[float, tuple[int, int], str]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(address,)) for address in addresses]

    def begin(self) -> None:
        """Start to connect."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop to connect."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE * 3)

    def _come(self, address: Address) -> None:
        # Leave the machine some time for the gateway.
        while not self._stop.wait(PAUSE):
            begun, pair = time.monotonic(), (0, 0)
            try:
                with socket.create_connection(("127.0.0.1", address.port), PATIENCE) as connected:
                    pair = pairOf(connected)
                    self._visit(RawClient(address, connected))
            except Exception as error:
                self.unwell.append((begun, pair, f"{address.protocol} {address.tls}: {error!r}"))

    def _visit(self, client: RawClient) -> None:
        answer = client.login(USER, PASSWORD)
        client.send(QUIT[client.address.protocol])
        client.rest()
        client.close()
        if not answer.startswith(ACCEPTED):
            raise AssertionError(answer)
        self.well.append(client.address.protocol)


class NobodyDroppedTestCase(UpgradeTestCase):
    """Several workers, and the actions of operators."""

    processes = f"worker_processes = {WORKERS}\n"
    starting = FOREGROUND

    def setUp(self):
        super().setUp()
        self.context = ssl.create_default_context(cafile=self.authority.path)
        self.doomed: list[tuple[float, set[tuple[int, int]]]] = []
        """When workers were killed, and the ports of the connections that they served then."""
        self.refused = 0

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        return super().ini(process, f"starttls = on\n{mail}", more)

    def at(self, protocol: str, tls: str) -> Address:
        port = self.ports[protocol, "implicit" if tls == "implicit" else "plain"]
        return Address(protocol, port, tls, self.authority.path)

    def workers(self) -> list[int]:
        """The workers that accept new clients."""
        return children(children(self.running())[-1])

    # Clients that stay.

    def arrive(self, count: int) -> list[RawClient]:
        """That many clients log in, and stay."""
        clients = []
        for number in range(count):
            kind = self.at(PROTOCOLS[number % len(PROTOCOLS)], MANNERS[number // len(PROTOCOLS) % len(MANNERS)])
            client = RawClient(kind)
            self.addCleanup(client.close)
            answer = client.login(USER, PASSWORD)
            self.assertTrue(answer.startswith(ACCEPTED), answer)
            if kind.protocol == "imap":
                client.send(b"s SELECT INBOX\r\n")
                self.assertIn(b"OK", client.reply(b"s "))
                self.idle(client)
            clients.append(client)
        return clients

    def idle(self, client: RawClient) -> None:
        client.send(b"i IDLE\r\n")
        self.assertEqual(client.line()[:1], b"+")

    def assertAnswer(self, clients: Sequence[RawClient]) -> None:
        """The backends of all C{clients} still reply; idle clients then return to IDLE."""
        for client in clients:
            idles = client.address.protocol == "imap"
            if idles:
                client.send(b"DONE\r\n")
                self.assertIn(b"i OK", client.reply(b"i "))
            self.assertServes(client)
            if idles:
                self.idle(client)

    def wasDoomed(self, begun: float, pair: tuple[int, int]) -> bool:
        """Whether the connection of C{pair}, begun then, was at a killed worker."""
        return any(begun < killed and pair in pairs for killed, pairs in self.doomed)

    def assertServed(self, newcomers: Newcomers) -> None:
        """All of them were served, except those at a killed worker."""
        unwell = [what for begun, pair, what in newcomers.unwell if not self.wasDoomed(begun, pair)]
        self.assertEqual(unwell, [])

    @contextlib.contextmanager
    def newcomers(self) -> Iterator[Newcomers]:
        """Other clients come and go in the meantime; all were served, except those at a killed worker."""
        newcomers = Newcomers([self.at(protocol, tls) for protocol in PROTOCOLS for tls in TLS])
        newcomers.begin()
        try:
            self.goesOn(newcomers)
            yield newcomers
            self.goesOn(newcomers)
        finally:
            newcomers.end()
        self.assertServed(newcomers)

    def goesOn(self, newcomers: Newcomers) -> None:
        sofar = len(newcomers.well) + len(PROTOCOLS) * len(TLS)
        waitUntil(lambda: len(newcomers.well) > sofar, "logins go on", PATIENCE * 2)

    def assertSpread(self, clients: Sequence[RawClient]) -> None:
        """Each worker has at least a quarter of its share of C{clients}."""
        perWorker = Counter(servedBy(self.workers(), [client.socket for client in clients]))
        self.assertEqual(len(perWorker), WORKERS, perWorker)
        self.assertGreaterEqual(min(perWorker.values()), len(clients) / WORKERS / 4, perWorker)

    # Tickets.

    def handshake(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A handshake with C{session}, and the greeting, with which a ticket arrives."""
        connected = socket.create_connection(("127.0.0.1", self.ports["imap", "implicit"]), PATIENCE)
        wrapped: ssl.SSLSocket = self.context.wrap_socket(connected, server_hostname="localhost", session=session)
        self.assertTrue(wrapped.recv(100).startswith(b"* OK"))
        return wrapped

    def assertResumed(self, session: ssl.SSLSession, wanted: bool = True) -> None:
        """Either all workers resume C{session}, or none."""
        seen: dict[int, bool | None] = {}
        lots: deque[list[ssl.SSLSocket]] = deque(maxlen=20)

        def haveAll() -> bool:
            # A worker that replaces another one may not accept clients yet.
            lots.append([connections.enter_context(self.handshake(session)) for _ in range(2 * WORKERS)])
            for worker, connected in zip(servedBy(self.workers(), lots[-1]), lots[-1], strict=True):
                seen.setdefault(worker, wanted)
                if connected.session_reused is not wanted:
                    seen[worker] = connected.session_reused
            if len(lots) == lots.maxlen:
                for connected in lots.popleft():
                    connected.close()
            return len(seen) == WORKERS

        with contextlib.ExitStack() as connections:
            waitUntil(haveAll, "each worker has a client")
        self.assertEqual(seen, dict.fromkeys(self.workers(), wanted))

    def ticket(self) -> ssl.SSLSession:
        """A ticket of one of the workers."""
        with self.handshake() as connected:
            session = connected.session
            assert session is not None
            return session

    # Actions of operators.

    def crash(self, clients: list[RawClient]) -> list[RawClient]:
        """
        The worker with most of C{clients} is killed, and another replaces it. Its tickets stay valid. Its sessions end.
        Returns all other clients.
        """
        session = self.ticket()
        latest = clients[-LATEST:]
        victim = Counter(servedBy(self.workers(), [client.socket for client in latest])).most_common(1)[0][0]
        # Its state is read while it cannot accept clients.
        os.kill(victim, signal.SIGSTOP)
        waitUntil(lambda: state(victim) == "T", "it is stopped")
        own, ports = inodes(victim), set(self.ports.values())
        doomed = {pair for pair, inode in serving().items() if pair[0] in ports and inode in own}
        self.doomed.append((time.monotonic(), doomed))
        os.kill(victim, signal.SIGKILL)
        ended = [client for client in clients if pairOf(client.socket) in doomed]
        self.assertGreaterEqual(len(ended), LATEST // WORKERS)
        for client in ended:
            self.assertTrue(client.ended())
            client.close()
        self.told(f"worker {victim} was killed by SIGKILL; starting another now")
        waitUntil(lambda: len(self.workers()) == WORKERS and victim not in self.workers(), "it is replaced")
        self.assertResumed(session)
        return [client for client in clients if client not in ended]

    def obeys(self, command: str) -> None:
        """Run C{mailgate COMMAND}, which waits for the answer."""
        with contextlib.redirect_stdout(io.StringIO()):
            arguments = [command, "--config", self.gateway.configuration, "--timeout", "2m"]
            self.assertEqual(main(arguments), 0)

    def reloadAll(self) -> None:
        """No previous worker accepts clients; previous tickets cause full handshakes."""
        before, session = self.workers(), self.ticket()
        self.obeys("reload")
        self.assertFalse(set(before) & set(self.workers()))
        self.assertSucceeded(before, session)

    def assertSucceeded(self, before: Sequence[int], session: ssl.SSLSession) -> None:
        """New workers, not those of C{before}, serve new clients, and do not resume C{session}."""
        self.assertFalse(self.listen(before))
        with self.handshake(session) as connected:
            self.assertFalse(connected.session_reused)

    def listen(self, workers: Sequence[int]) -> bool:
        """Whether one of C{workers} has a socket of the master."""
        return any(inodes(pid) & inodes(self.running()) for pid in workers)

    def refuseAll(self) -> None:
        """A bad configuration changes nothing."""
        before = self.workers()
        self.gateway.configure(self.ini(mail="timeout = soon"))
        os.kill(self.running(), signal.SIGHUP)
        self.refused += 1
        self.told("reload refused: the current configuration stays active", self.refused)
        self.assertEqual(self.workers(), before)
        self.gateway.configure(self.ini())

    def upgradeAll(self) -> None:
        """Another master, and other workers."""
        master, before, session = self.running(), self.workers(), self.ticket()
        self.obeys("upgrade")
        self.assertNotEqual(self.running(), master)
        self.assertTrue(runs(master))
        # The previous workers learn when the new master serves, which the answer reports.
        waitUntil(lambda: not self.listen(before), "they listen no more")
        self.assertSucceeded(before, session)


class NobodyDroppedTests(NobodyDroppedTestCase):
    """Everything together."""

    def test_busyDay(self):
        """
        Sessions and new clients survive good and bad reloads, killed workers, and an upgrade: only sessions of a killed
        worker end.
        """
        gateway = self.start()
        with self.newcomers() as newcomers:
            clients = self.arrive(SESSIONS)
            self.assertSpread(clients)
            for number in range(CRASHES):
                clients = self.crash(clients)
                for _ in range(RELOADS_BETWEEN):
                    self.reloadAll()
                    self.goesOn(newcomers)
                self.refuseAll()
                if number == UPGRADE_AFTER:
                    self.upgradeAll()
                self.assertAnswer(clients)
                self.assertServed(newcomers)
                # One of the workers that serve them is killed next.
                clients += self.arrive(LATEST)
        self.assertAnswer(clients)
        self.assertGreater(len(clients), SESSIONS // 2)
        self.assertNoTraceback()
        self.assertEnds(gateway.pid, clients)

    def assertEnds(self, old: int, clients: Sequence[RawClient]) -> None:
        """When all clients have left, no previous process or descriptor remains."""
        for client in clients:
            if client.address.protocol == "imap":
                client.send(b"DONE\r\n")
            self.leave(client)
        self.assertEqual(self.gateway.status(PATIENCE), 0)
        master = self.running()
        waitUntil(lambda: len(children(master)) == 1, "old generations are gone")
        self.assertEqual(len(self.workers()), WORKERS)
        self.assertFalse(runs(old))
