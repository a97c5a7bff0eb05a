# -*- test-case-name: mailgate.test.integration.test_nobodydropped -*-
"""
A busy day of a gateway of several processes: it is reloaded again and again, workers die, and it is upgraded, while
users are logged in and others come. Nobody notices but those whose worker has died.
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
from collections import Counter
from collections.abc import Iterator, Sequence

from mailgate.cli.main import main
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.procfs import children, inodes, pairOf, runs, servedBy, serving, state
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import ACCEPTED, PASSWORD, QUIT, USER
from mailgate.test.integration.site import PROTOCOLS, TLS, Address
from mailgate.test.integration.upgrading import UpgradeTestCase

WORKERS = 3
SESSIONS = 200
"""A third each of IMAP in IDLE, POP3 and SMTP, half of them over TLS."""
CRASHES = 5
RELOADS_BETWEEN = 4
UPGRADE_AFTER = 2
"""Crashes."""

LATEST = 24
"""Those who come before the next worker dies."""

PAUSE = 0.05
"""Seconds between two newcomers of one kind."""

MANNERS = ("plain", "starttls", "plain", "implicit")
"""Of those who stay, one after the other."""


class Newcomers:
    """
    Clients that log in and leave again, and again, one at a time for each of C{addresses}. C{well} has an entry for
    each that was served, C{unwell} tells of all others: when it connected, its ports, and what went wrong.
    """

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.well: list[str] = []
        self.unwell: list[tuple[float, tuple[int, int], str]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(address,)) for address in addresses]

    def begin(self) -> None:
        """Come."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Come no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE * 3)

    def _come(self, address: Address) -> None:
        # The machine is to have some time left for those whom they come to.
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
    """Several workers, and what operators do to them."""

    processes = f"worker_processes = {WORKERS}\n"

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
        """Those that let newcomers in."""
        return children(children(self.running())[-1])

    # Those who are there.

    def arrive(self, count: int) -> list[RawClient]:
        """So many log in, and stay."""
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
        """The backends of all C{clients} are there still; who was idle is idle again then."""
        for client in clients:
            idles = client.address.protocol == "imap"
            if idles:
                client.send(b"DONE\r\n")
                self.assertIn(b"i OK", client.reply(b"i "))
            self.assertServes(client)
            if idles:
                self.idle(client)

    def wasDoomed(self, begun: float, pair: tuple[int, int]) -> bool:
        """Whether the connection between C{pair}, begun then, was on a worker that was killed."""
        return any(begun < killed and pair in pairs for killed, pairs in self.doomed)

    def assertServed(self, newcomers: Newcomers) -> None:
        """All of them were but those whose worker was killed."""
        unwell = [what for begun, pair, what in newcomers.unwell if not self.wasDoomed(begun, pair)]
        self.assertEqual(unwell, [])

    @contextlib.contextmanager
    def newcomers(self) -> Iterator[Newcomers]:
        """Others come and go meanwhile; in the end all were served but those whose worker was killed."""
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
        """None of the workers has less than a quarter of its share of C{clients}."""
        perWorker = Counter(servedBy(self.workers(), [client.socket for client in clients]))
        self.assertEqual(len(perWorker), WORKERS, perWorker)
        self.assertGreaterEqual(min(perWorker.values()), len(clients) / WORKERS / 4, perWorker)

    # Tickets.

    def handshake(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """A handshake with C{session}, and the greeting, with which a ticket comes."""
        connected = socket.create_connection(("127.0.0.1", self.ports["imap", "implicit"]), PATIENCE)
        wrapped: ssl.SSLSocket = self.context.wrap_socket(connected, server_hostname="localhost", session=session)
        self.assertTrue(wrapped.recv(100).startswith(b"* OK"))
        return wrapped

    def assertResumed(self, session: ssl.SSLSession, wanted: bool = True) -> None:
        """All workers resume C{session}, or none does."""
        seen: dict[int, bool | None] = {}
        with contextlib.ExitStack() as connections:
            for _ in range(20):
                lot = [connections.enter_context(self.handshake(session)) for _ in range(2 * WORKERS)]
                for worker, connected in zip(servedBy(self.workers(), lot), lot, strict=True):
                    seen.setdefault(worker, wanted)
                    if connected.session_reused is not wanted:
                        seen[worker] = connected.session_reused
                if len(seen) == WORKERS:
                    break
        self.assertEqual(seen, dict.fromkeys(self.workers(), wanted))

    def ticket(self) -> ssl.SSLSession:
        """One of the workers gives it."""
        with self.handshake() as connected:
            session = connected.session
            assert session is not None
            return session

    # What is done to them.

    def crash(self, clients: list[RawClient]) -> list[RawClient]:
        """
        The worker dies that has most of C{clients}, and its tickets live on; another takes its place. The sessions of
        the former end; gives all others.
        """
        session = self.ticket()
        latest = clients[-LATEST:]
        victim = Counter(servedBy(self.workers(), [client.socket for client in latest])).most_common(1)[0][0]
        # What it has is looked at while it can take nobody in.
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
        self.told(f"worker {victim} was ended by SIGKILL; starting another now")
        waitUntil(lambda: len(self.workers()) == WORKERS and victim not in self.workers(), "it is replaced")
        self.assertResumed(session)
        return [client for client in clients if client not in ended]

    def obeys(self, command: str) -> None:
        """C{mailgate COMMAND}, which waits for the answer."""
        with contextlib.redirect_stdout(io.StringIO()):
            arguments = [command, "--config", self.gateway.configuration, "--timeout", "2m"]
            self.assertEqual(main(arguments), 0)

    def reloadAll(self) -> None:
        """Nobody of before lets anybody in any more; tickets of before are not taken, which nobody minds."""
        before, session = self.workers(), self.ticket()
        self.obeys("reload")
        self.assertFalse(set(before) & set(self.workers()))
        self.assertSucceeded(before, session)

    def assertSucceeded(self, before: Sequence[int], session: ssl.SSLSession) -> None:
        """Others than the workers of C{before} serve newcomers, who take no C{session} of theirs."""
        self.assertFalse(self.listen(before))
        with self.handshake(session) as connected:
            self.assertFalse(connected.session_reused)

    def listen(self, workers: Sequence[int]) -> bool:
        """Whether one of C{workers} has a socket of the master's."""
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
        # The workers of before are told when the new master serves, which is what the answer says.
        waitUntil(lambda: not self.listen(before), "they listen no more")
        self.assertSucceeded(before, session)


class NobodyDroppedTests(NobodyDroppedTestCase):
    """All of it."""

    def test_busyDay(self):
        """
        Sessions and newcomers live through reloads good and bad, the death of workers, and an upgrade: those end that
        were on a worker that was killed, and nobody else.
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
                # One of the workers that they come to is killed next.
                clients += self.arrive(LATEST)
        self.assertAnswer(clients)
        self.assertGreater(len(clients), SESSIONS // 2)
        self.assertNoTraceback()
        self.assertEnds(gateway.pid, clients)

    def assertEnds(self, old: int, clients: Sequence[RawClient]) -> None:
        """When all have left, nothing is left of what has gone before: no process, and no descriptor."""
        for client in clients:
            if client.address.protocol == "imap":
                client.send(b"DONE\r\n")
            self.leave(client)
        self.assertEqual(self.gateway.status(PATIENCE), 0)
        master = self.running()
        waitUntil(lambda: len(children(master)) == 1, "old generations are gone")
        self.assertEqual(len(self.workers()), WORKERS)
        self.assertFalse(runs(old))
