# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
A gateway with several workers: which worker serves which client, what happens when a process is killed, and reload,
drain and stop as with one process.
"""

from __future__ import annotations

import base64
import grp
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mailgate.system.exitstatus import CANNOT_SERVE
from mailgate.test.integration import test_reload
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import accepts, newFolder, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, TWISTD, GatewayProcess, environment
from mailgate.test.integration.procfs import children, inodes, runs, servedBy, serving
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.reloading import ACCEPTED, GOODBYE, PASSWORD, PROTOCOLS, QUIT, USER, ReloadTestCase
from mailgate.test.integration.sandboxbackend import sandboxPorts
from mailgate.test.integration.site import Address

WORKERS = 3


def usersWithGroups() -> Iterator[str]:
    """Users other than root with a group of their name, as nginx requires."""
    groups = {group.gr_name: group.gr_gid for group in grp.getgrall()}
    for entry in pwd.getpwall():
        if entry.pw_uid and groups.get(entry.pw_name) == entry.pw_gid:
            yield entry.pw_name


MixinBase: Any = object if not TYPE_CHECKING else ReloadTestCase
"""The class that the mixin is used with."""


class WorkersMixin(MixinBase):
    """Several workers in front of the sandbox's servers."""

    def setUp(self):
        super().setUp()
        self.sandbox = sandboxPorts()

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        whole = super().ini(f"worker_processes = {WORKERS}\n{process}", mail, more)
        return str(whole.partition("[sandbox]")[0])

    def start(self, *arguments, **named) -> GatewayProcess:
        # The ports are bound before a worker serves.
        gateway: GatewayProcess = super().start(*arguments, **named)
        self.told("forked by zygote")
        return gateway

    def zygotes(self) -> list[int]:
        """The youngest is the last."""
        return children(self.gateway.pid)

    def workers(self) -> list[int]:
        """The workers that accept new clients."""
        return children(self.zygotes()[-1])

    def whole(self) -> bool:
        """Whether all workers run, and are ready."""
        return len(self.workers()) == WORKERS and all(len(inodes(pid)) >= len(self.ports) for pid in self.workers())

    def workersOf(self, clients: Sequence[RawClient]) -> list[int]:
        """The worker of each of C{clients}."""
        workers = [pid for zygote in self.zygotes() for pid in children(zygote)]
        return servedBy(workers, [client.socket for client in clients])

    def workerOf(self, client: RawClient) -> int:
        """The worker of C{client}."""
        return self.workersOf([client])[0]

    def leave(self, client: RawClient) -> None:
        client.send(QUIT[client.address.protocol])
        client.rest()
        client.close()


class WorkersReloadTests(WorkersMixin, test_reload.ReloadTests):
    """The tests of reloads with one process."""

    def test_restartNeeded(self):
        """An option that a reload cannot change causes a warning and keeps its value; a sandbox is refused."""
        self.start()
        self.gateway.configure(self.ini(process=f"pid = {self.folder}/x.pid"))
        self.reload()
        self.told("pid changed; it takes effect after a restart")
        self.assertFalse(os.path.exists(f"{self.folder}/x.pid"))
        self.gateway.configure(self.ini().replace(f"= {WORKERS}", "= 1") + "[sandbox]\n")
        self.gateway.signal(signal.SIGHUP)
        self.told("[sandbox]: cannot be added while the gateway runs with workers; restart it")
        self.assertServes(self.loggedIn("imap"))

    def test_forgotten(self):
        """Generations without sessions leave no process behind, and no open descriptor of the master."""
        self.start()
        self.reload()
        waitUntil(lambda: len(self.zygotes()) == 1, "the old generation is gone")
        before = len(self.gateway.descriptors())
        for _ in range(4):
            self.reload()
        waitUntil(lambda: len(self.zygotes()) == 1, "the old generations are gone")
        waitUntil(lambda: len(self.gateway.descriptors()) <= before, "descriptors are closed")

    def test_count(self):
        """A reload may change the number of workers, down to one."""
        self.start()
        for count in (1, WORKERS + 2):
            self.gateway.configure(self.ini().replace(f"worker_processes = {WORKERS}", f"worker_processes = {count}"))
            self.reload()
            self.assertEqual(len(self.workers()), count)

    def test_notUp(self):
        """A configuration that the master accepts, but with which no zygote starts, changes nothing either."""
        self.start()
        client = self.loggedIn("imap")
        before = self.zygotes(), self.workers()
        self.gateway.configure(self.ini(mail="error_log = missing/gateway.log"))
        self.gateway.signal(signal.SIGHUP)
        self.told("reload refused: the current configuration stays active")
        self.assertIn("error_log = ", self.gateway.log())
        self.assertIn("cannot be opened: No such file or directory", self.gateway.log())
        waitUntil(lambda: (self.zygotes(), self.workers()) == before, "what was tried is gone")
        self.assertServes(client)
        self.assertServes(self.loggedIn("smtp", "implicit"))


class WorkersScramTests(WorkersMixin, ReloadTestCase):
    """SCRAM."""

    def test_unknownUser(self):
        """The challenge for an unknown user has the same salt in all workers, before and after a reload."""
        self.start(self.ini(mail="imap_auth = plain scram-sha-256"))
        salts = set()
        for _ in range(2):
            clients: list[RawClient] = []

            def allServe(clients: list[RawClient] = clients) -> bool:
                clients.append(self.client("imap"))
                return len(set(self.workersOf(clients))) == WORKERS

            waitUntil(allServe, "each worker has a client")
            for client in clients:
                client.send(b"a AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(b"n,,n=dormouse,r=abc") + b"\r\n")
                salts.add(base64.b64decode(client.line().removeprefix(b"+ ")).partition(b",s=")[2])
            self.reload()
        (challenge,) = salts
        self.assertRegex(challenge, rb"\A[A-Za-z0-9+/]{22}==,i=4096\Z")


class WorkersEndTests(WorkersMixin, test_reload.EndTests):
    """The tests of the end with one process."""

    def test_interrupted(self):
        """A Control-C, which all processes of a terminal receive, ends them cleanly."""
        self.start()
        client = self.client("imap")
        for pid in (*self.workers(), *self.zygotes(), self.gateway.pid):
            os.kill(pid, signal.SIGINT)
        self.assertEqual(client.rest(), GOODBYE["imap"])
        self.assertEqual(self.gateway.status(), 0)
        self.assertNotIn("starting another", self.gateway.log())
        self.assertNoTraceback()

    def test_nobodyLeft(self):
        """No process remains at the end."""
        self.start()
        processes = [*self.zygotes(), *self.workers()]
        self.loggedIn("imap")
        self.gateway.stop()
        self.assertEqual([pid for pid in processes if runs(pid)], [])


class WorkersFileTests(WorkersMixin, test_reload.FileTests):
    """The tests of files with one process."""

    def writers(self) -> list[int]:
        return [self.gateway.pid, *self.zygotes(), *self.workers()]


class DeathTests(WorkersMixin, ReloadTestCase):
    """One of the processes is killed."""

    def test_worker(self):
        """Only the sessions of a killed worker end, and another worker replaces it."""
        self.start()
        clients = [self.loggedIn(*which) for which in [*self.ports] * 4]
        owners = dict(zip(clients, self.workersOf(clients), strict=True))
        victim = Counter(owners.values()).most_common(1)[0][0]
        os.kill(victim, signal.SIGKILL)
        self.told(f"worker {victim} was killed by SIGKILL; starting another now")
        for client, owner in owners.items():
            if owner == victim:
                self.assertTrue(client.ended())
            else:
                self.assertServes(client)
        waitUntil(self.whole, "it is replaced")
        self.assertNotIn(victim, self.workers())
        for which in self.ports:
            self.assertServes(self.loggedIn(*which))

    def test_again(self):
        """The replacement can be killed too, and the others serve new clients in the meantime."""
        self.start()
        for _ in range(3):
            victim = self.workers()[-1]
            os.kill(victim, signal.SIGKILL)
            self.told(f"worker {victim} was killed by SIGKILL")
            for which in self.ports:
                self.assertServes(self.loggedIn(*which))
            waitUntil(self.whole, "it is replaced")
        self.assertNoTraceback()

    def test_zygote(self):
        """If the zygote is killed sessions go on, and a new generation serves new clients."""
        self.start()
        clients = [self.loggedIn(*which) for which in self.ports]
        waiting = self.client("imap")
        (zygote,) = self.zygotes()
        workers = self.workers()
        os.kill(zygote, signal.SIGKILL)
        self.told(f"zygote {zygote} was killed by SIGKILL; its workers are draining")
        self.assertEqual(waiting.rest(), GOODBYE["imap"])
        self.told("forked by zygote", 2)
        for which in self.ports:
            self.assertServes(self.loggedIn(*which))
        for client in clients:
            self.assertServes(client)
            self.leave(client)
        waitUntil(lambda: not any(map(runs, workers)), "the old workers are gone")
        self.assertNoTraceback()

    def test_zygoteAtStart(self):
        """Standard error says why there is no zygote, in the background too."""
        with open(f"{self.folder}/sitecustomize.py", "w", encoding="ascii") as opened:
            opened.write(
                "import sys\nif 'mailgate.process.workers.zygote' in sys.orig_argv:\n"
                "    sys.modules['mailgate.process.workers.worker'] = None\n"
            )
        with open(f"{self.folder}/broken.ini", "w", encoding="utf-8") as opened:
            opened.write(self.ini())
        paths = {**environment(), "PYTHONPATH": f"{self.folder}:{environment()['PYTHONPATH']}"}
        for options in (["-n"], []):
            command = [*TWISTD, *options, "--pidfile=", "mailgate", "--config", f"{self.folder}/broken.ini"]
            done = subprocess.run(command, env=paths, cwd=self.folder, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, CANNOT_SERVE, done.stderr)
            reason = (
                "the zygote exited with status 1: ModuleNotFoundError: import of mailgate.process.workers.worker halted"
            )
            self.assertIn(reason, done.stderr)

    def test_zygoteAndEnd(self):
        """Workers without a zygote learn of the end too."""
        self.start()
        client = self.loggedIn("imap")
        (zygote,) = self.zygotes()
        owner = self.workerOf(client)
        os.kill(zygote, signal.SIGKILL)
        self.told("forked by zygote", 2)
        self.assertServes(client)
        self.gateway.signal(signal.SIGTERM)
        self.gateway.status()
        self.assertTrue(client.ended())
        waitUntil(lambda: not runs(owner), "the worker is gone")

    def test_master(self):
        """If the master is killed no client is accepted; sessions go on, and the workers exit with the last one."""
        self.start()
        client, waiting = self.loggedIn("imap", "implicit"), self.client("pop3")
        processes = [*self.zygotes(), *self.workers()]
        self.gateway.signal(signal.SIGKILL)
        self.gateway.status()
        self.assertEqual(waiting.rest(), GOODBYE["pop3"])
        waitUntil(lambda: not any(map(accepts, self.ports.values())), "no process listens")
        self.assertServes(client)
        self.leave(client)
        waitUntil(lambda: not any(map(runs, processes)), "all are gone")
        self.assertNotIn("Traceback", self.gateway.log())


class ServingTests(WorkersMixin, ReloadTestCase):
    """Several workers serve together."""

    def connectionsPerWorker(self) -> Counter[int]:
        clients = [self.loggedIn("imap") for _ in range(20)]
        clients += self.crowd(40)
        return Counter(self.workersOf(clients))

    def crowd(self, count: int) -> list[RawClient]:
        """Clients that connect at once."""
        address = Address("imap", self.ports["imap", "plain"], "plain", self.authority.path)
        sockets = [socket.socket() for _ in range(count)]
        for each in sockets:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", address.port))
        clients = []
        for each in sockets:
            each.settimeout(PATIENCE)
            client = RawClient(address, each)
            self.addCleanup(client.close)
            clients.append(client)
        for client in clients:
            self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
        return clients

    def test_spread(self):
        """Logins spread over the workers: each has at least a quarter of its share."""
        self.start()
        perWorker = self.connectionsPerWorker()
        fair = sum(perWorker.values()) / WORKERS
        self.assertEqual(len(perWorker), WORKERS, perWorker)
        self.assertGreaterEqual(min(perWorker.values()), fair / 4, perWorker)

    def test_noClients(self):
        """Neither the master nor the zygote has a socket of a client, or of a backend."""
        self.start()
        for which in self.ports:
            self.loggedIn(*which)
        connections = set(serving().values())
        for pid in (self.gateway.pid, *self.zygotes()):
            self.assertEqual(inodes(pid) & connections, set())
        workers = [inodes(pid) & connections for pid in self.workers()]
        self.assertGreaterEqual(len(set.union(*workers)), 2 * len(self.ports))
        self.assertEqual(len(set.union(*workers)), sum(map(len, workers)), "a connection is one worker's")

    def test_random(self):
        """All challenges differ, whichever worker sends them: workers do not share random numbers."""
        self.start(self.ini(mail="pop3_auth = plain apop"))
        clients = [self.client("pop3") for _ in range(12)]
        challenges = {re.findall(rb"<\d+", client.greeting)[0] for client in clients}
        self.assertEqual(len(challenges), len(clients))
        self.assertGreater(len(set(self.workersOf(clients))), 1)

    def test_log(self):
        """Several workers write whole lines to one log."""
        self.start()
        with self.steadyLogins() as done:
            waitUntil(lambda: len(done) > 100, "there have been logins")
        self.told("connection ended", len(done))
        for line in self.gateway.log().splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[\w+\] \d+: ")
            self.assertLessEqual(line.count("connection ended"), 1)
        pids = set(map(int, re.findall(r"\] (\d+): connection ended", self.gateway.log())))
        self.assertLessEqual(pids, set(self.workers()))

    def resumes(self, cache: str) -> None:
        """A TLS session of one worker is resumed by the others."""
        self.start(self.ini(mail=f"ssl_session_cache = {cache}"))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            seen = self.resumptions(version)
            self.assertEqual(set(seen.values()), {True}, version)
            self.assertEqual(len(seen), WORKERS, version)

    def resumptions(self, version: ssl.TLSVersion) -> dict[int, bool | None]:
        """For each worker whether it has resumed the session of the first connection."""
        context = ssl.create_default_context(cafile=self.authority.path)
        context.minimum_version = context.maximum_version = version
        session: ssl.SSLSession | None = None
        seen: dict[int, bool | None] = {}
        for _ in range(40):
            connection = socket.create_connection(("127.0.0.1", self.ports["imap", "implicit"]), PATIENCE)
            connection = context.wrap_socket(connection, server_hostname="localhost", session=session)
            self.addCleanup(connection.close)
            # With it a ticket of TLS 1.3 arrives.
            self.assertTrue(connection.recv(100).startswith(b"* OK"))
            inode = serving()[self.ports["imap", "implicit"], connection.getsockname()[1]]
            (worker,) = [pid for pid in self.workers() if inode in inodes(pid)]
            if session is not None:
                seen[worker] = connection.session_reused
            session = session or connection.session
            if len(seen) == WORKERS:
                break
        return seen

    def test_resumed(self):
        """All workers resume a session of TLS 1.2, and one of TLS 1.3."""
        self.resumes("none")

    def test_resumedShared(self):
        """So do they with C{ssl_session_cache} C{shared}."""
        self.resumes("shared:SSL:1m")


class RightsTests(WorkersMixin, ReloadTestCase):
    """The users of the processes. The tests describe root; started by another user, all processes keep that user."""

    starting = FOREGROUND

    def setUp(self):
        super().setUp()
        self.isRoot = os.geteuid() == 0
        self.user = next(usersWithGroups())
        found = pwd.getpwnam(self.user)
        self.ids = (found.pw_uid, found.pw_gid) if self.isRoot else (os.getuid(), os.getgid())
        # Users other than root must be able to read the configuration there.
        os.chmod(self.folder, 0o755)
        os.chmod(self.pair.key, 0o600)

    def owner(self, pid: int) -> tuple[int, int]:
        with open(f"/proc/{pid}/status", encoding="ascii") as opened:
            fields = dict(line.split(":", 1) for line in opened.read().splitlines())
        uids, gids = (set(map(int, fields[name].split())) for name in ("Uid", "Gid"))
        self.assertEqual((len(uids), len(gids)), (1, 1), "for good")
        return uids.pop(), gids.pop()

    def gainsNothing(self, pid: int) -> bool:
        with open(f"/proc/{pid}/status", encoding="ascii") as opened:
            return re.search(r"^NoNewPrivs:\s*1$", opened.read(), re.MULTILINE) is not None

    def assertWorkersBecame(self) -> None:
        # A forked process has its sockets a moment before it changes its user.
        waitUntil(lambda: len(self.workers()) == WORKERS, "all workers are there")
        waitUntil(lambda: {self.owner(pid) for pid in self.workers()} == {self.ids}, "all are that user")
        if self.isRoot:
            waitUntil(lambda: all(map(self.gainsNothing, self.workers())), "none can gain rights")

    def test_user(self):
        """With C{user} the workers become that user; master and zygote keep theirs, and read the key again."""
        self.start(self.ini(f"user = {self.user}"))
        own = os.geteuid(), os.getegid()
        self.assertWorkersBecame()
        for _ in range(2):
            self.assertEqual({self.owner(pid) for pid in (self.gateway.pid, *self.zygotes())}, {own})
            self.assertServes(self.loggedIn("imap", "implicit"))
            self.reload()
            self.assertWorkersBecame()
        os.kill(self.workers()[0], signal.SIGKILL)
        self.told("starting another now")
        waitUntil(self.whole, "it is replaced")
        self.assertWorkersBecame()
        self.assertNoTraceback()

    def test_unreadable(self):
        """If workers' user cannot read a file that they read again, the log warns once for all of them."""
        users = os.path.join(self.folder, "users")
        with open(os.open(users, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as opened:
            opened.write(f"joe:{{PLAIN}}sesame::::::host=127.0.0.1 port={self.sandbox['imap']}\n")
        self.start(self.ini(f"user = {self.user}", more=f"auth_file = {users}\n"))
        for count in (1, 2):
            self.told(f"workers {' '.join(map(str, self.workers()))} serve")
            wanted = f"the user {self.user} cannot read it: the gateway will not notice changes"
            self.assertEqual(self.gateway.log().count(wanted), count if self.isRoot else 0)
            if count == 1:
                self.reload()
        self.assertNoTraceback()

    def test_reopen(self):
        """A new log file is given to the user, and the workers write to it."""
        self.start(self.ini(f"user = {self.user}"))
        log = os.path.join(self.folder, "gateway.log")
        os.rename(log, f"{log}.1")
        self.gateway.signal(signal.SIGUSR1)
        waitUntil(lambda: os.path.exists(log) and os.stat(log).st_uid == self.ids[0], "it is there, and the user's")
        self.told("log files reopened")

        def isTold() -> bool:
            self.leave(self.client("smtp"))
            return "outcome client quit" in self.gateway.log()

        waitUntil(isTold, "workers write to it")
        self.assertNoTraceback()

    def test_reopenServers(self):
        """So is the log of a server, which the master has not opened."""
        self.start(self.ini(f"user = {self.user}", more="error_log = own.log info\n"))
        log = os.path.join(self.folder, "own.log")
        os.rename(log, f"{log}.1")
        self.gateway.signal(signal.SIGUSR1)

        def isTold() -> bool:
            self.leave(self.client(PROTOCOLS[-1]))
            with open(log, encoding="utf-8") as opened:
                return "outcome client quit" in opened.read()

        waitUntil(lambda: os.path.exists(log) and isTold(), "workers write to it")
        self.assertEqual(os.stat(log).st_uid, self.ids[0])
        self.assertNotIn("cannot reopen", self.gateway.log())

    def test_link(self):
        """
        If the user owns the folder and replaces a log by a link, root does not follow it, at USR1 or at HUP: the old
        file stays in use. (Users other than root follow links as the system allows.)
        """
        if not self.isRoot:
            return
        own = os.path.join(self.folder, "own")
        os.mkdir(own)
        for folder in (own, self.folder):
            os.chown(folder, *self.ids)
        precious = os.path.join(newFolder("precious"), "precious")
        self.addCleanup(shutil.rmtree, os.path.dirname(precious), ignore_errors=True)
        with open(precious, "w", encoding="ascii") as opened:
            opened.write("precious\n")
        self.start(self.ini(f"user = {self.user}", more="error_log = own/own.log info\n"))
        process, server = os.path.join(self.folder, "gateway.log"), os.path.join(own, "own.log")
        for log in (process, server):
            os.rename(log, f"{log}.1")
            os.symlink(precious, log)
        self.gateway.signal(signal.SIGUSR1)

        def read() -> str:
            with open(f"{process}.1", encoding="utf-8") as opened:
                return opened.read()

        reason = "it is a symbolic link, and other users can write to the folder"
        told = f"cannot reopen {process}; logging continues in the old file: {reason}"
        waitUntil(lambda: told in read(), "it is told")
        self.gateway.signal(signal.SIGHUP)
        waitUntil(lambda: "reload refused: the current configuration stays active" in read(), "nor at a reload")
        self.assertIn(f"{process}: cannot be opened: {reason}", read())
        self.leave(self.client("imap"))
        self.leave(self.client(PROTOCOLS[-1]))
        with open(precious, encoding="utf-8") as opened:
            self.assertEqual(opened.read(), "precious\n")
        for log in (process, server):
            os.unlink(log)
            os.rename(f"{log}.1", log)
        self.reload()
        self.assertNoTraceback()

    def test_uid(self):
        """
        With twistd's C{--uid} all processes become that user, after the first zygote has read the files that only root
        may read. A reload that needs to read them is refused, and sessions go on.
        """
        uid = ["--uid", self.user, "--gid", str(self.ids[1])] if self.isRoot else []
        self.start(command=[*TWISTD, "-n", "--pidfile=", *uid])
        everybody = [self.gateway.pid, *self.zygotes(), *self.workers()]
        self.assertEqual({self.owner(pid) for pid in everybody}, {self.ids})
        if self.isRoot:
            self.assertTrue(all(map(self.gainsNothing, everybody)))
        client = self.loggedIn("imap", "implicit")
        self.gateway.signal(signal.SIGHUP)
        if self.isRoot:
            self.told(f"ssl_certificate_key = {self.pair.key}: cannot be read: Permission denied")
            self.told("reload refused: the current configuration stays active")
        else:
            self.told("the new configuration is active")
        self.assertServes(client)
        self.assertServes(self.loggedIn("pop3", "implicit"))
        self.assertNoTraceback()
