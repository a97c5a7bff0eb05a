# -*- test-case-name: mailgate.test.integration.test_keeper -*-
"""
The keeper of a gateway with workers and of one without: its processes and sockets over kills, reloads, upgrades, drain
and stop.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import signal
import stat
import subprocess
import threading

from mailgate.system.exitstatus import CANNOT_LISTEN
from mailgate.test.integration.daemon import accepts, freePort, waitUntil
from mailgate.test.integration.gateway import FOREGROUND, WITH_KEEPER, environment
from mailgate.test.integration.keeping import KeeperTestCase
from mailgate.test.integration.procfs import children, runs
from mailgate.test.integration.test_workers import usersWithGroups
from mailgate.test.integration.upgrading import WORKERS


class KeeperMixin:
    """Tests for both kinds of gateway."""

    def test_reloadOrdered(self):
        """The admin server passes on a reload, and answers whether it succeeded."""
        self.start()
        self.assertEqual(self.ask("/api/1/reload", {})[0], 200)
        self.told("reload 1 done: the new configuration is active")
        self.gateway.configure(self.ini(mail="timeout = soon"))
        waitUntil(self.isAnswering, "the keeper answers")
        status, answer = self.ask("/api/1/reload", {})
        self.assertEqual(status, 409)
        self.assertIn("timeout = soon", str(answer))

    def test_backendOrdered(self):
        """The admin server passes on an order for a backend; one for an unknown backend is answered so."""
        self.start()
        self.gateway.configure(self.ini(more="[upstream pool]\nserver = 127.0.0.1:9\n"))
        self.reload()
        waitUntil(self.isAnswering, "the keeper answers")
        self.assertEqual(self.ask("/api/1/backends/127.0.0.1:9/drain", {})[0], 200)
        self.told("backend 127.0.0.1:9: drain ordered")
        self.assertEqual(self.ask("/api/1/backends/127.0.0.2:9/drain", {})[0], 404)

    def test_upgrade(self):
        """The new process takes over the sockets, and lists the sessions of the old one until they end."""
        gateway = self.start()
        client = self.loggedIn("imap")
        old = self.serving()
        waitUntil(lambda: self.knows(*old), "the keeper knows the processes")
        inodes = [os.stat(path).st_ino for path in self.socketFiles()]
        before = self.running()
        with self.steadyQuestions():
            self.upgraded()
            waitUntil(lambda: self.knows(*self.serving()), "the new keeper knows the new processes")
        self.assertEqual([os.stat(path).st_ino for path in self.socketFiles()], inodes)
        waitUntil(lambda: set(old) & set(self.members()), "it knows the old process with the session")
        waitUntil(lambda: not self.keepers(before), "the old keeper has left")
        self.assertServes(client)
        self.leave(client)
        self.assertEqual(gateway.status(), 0)
        waitUntil(lambda: not set(old) & set(self.members()), "the old process is gone")
        self.assertTrue(self.isAnswering())
        self.assertEqual([os.stat(path).st_ino for path in self.socketFiles()], inodes)
        self.endAll()
        self.assertEqual([path for path in self.socketFiles() if os.path.exists(path)], [])
        self.assertNoTraceback()

    def test_upgradeFails(self):
        """After an upgrade that fails the old keeper goes on, and can hand over later."""
        self.start()
        before = self.running()
        keepers = self.keepers()
        with self.steadyQuestions():
            self.gateway.configure(self.ini(f"metrics = 127.0.0.1:{freePort()}", "timeout = soon"))
            os.kill(before, signal.SIGUSR2)
            self.told("upgrade failed, the old process continues: ")
        self.assertEqual(self.keepers(), keepers)
        self.assertTrue(all(map(os.path.exists, self.socketFiles())))
        self.gateway.configure(self.ini())
        self.upgraded()
        waitUntil(lambda: self.knows(*self.serving()), "the new keeper knows the new processes")
        self.assertNoTraceback()

    def test_drain(self):
        """While the gateway drains, the admin server answers; then all is gone."""
        gateway = self.start()
        client = self.loggedIn("imap")
        processes = [pid for zygote in children(gateway.pid) for pid in (zygote, *children(zygote))]
        gateway.signal(signal.SIGQUIT)
        self.told("draining: refusing new clients")
        waitUntil(lambda: len(self.members()) == 1, "the process with the session remains")
        self.leave(client)
        self.assertEqual(gateway.status(), 0)
        self.assertEqual([pid for pid in processes if runs(pid)], [])
        self.assertEqual([path for path in self.socketFiles() if os.path.exists(path)], [])
        self.assertNoTraceback()

    # Help.

    def reloadThrice(self):
        """Reload again and again; the admin server answers all the time."""
        with self.steadyQuestions():
            for _ in range(3):
                self.reload()
        self.assertTrue(self.isAnswering())

    @contextlib.contextmanager
    def steadyQuestions(self):
        """The admin server is asked all the time, and never refuses a connection or leaves it without an answer."""
        stop = threading.Event()
        wrong = []

        def askOn():
            while not stop.is_set():
                try:
                    status, answer = self.ask("/api/1/workers")
                except (OSError, http.client.HTTPException, ValueError) as error:
                    wrong.append(repr(error))
                else:
                    if status not in (200, 503):
                        wrong.append((status, answer))
                stop.wait(0.02)

        thread = threading.Thread(target=askOn)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
        self.assertEqual(wrong, [])


class _Started:
    """A gateway without a pid file."""

    def __init__(self, case, ini, environ):
        self.path = os.path.join(case.folder, "gateway.ini")
        with open(self.path, "w", encoding="ascii") as opened:
            opened.write(ini)
        self.process = subprocess.Popen(
            [*FOREGROUND, "mailgate", "--config", self.path], env=environ, stdout=subprocess.DEVNULL
        )
        case.addCleanup(self.end)

    def end(self):
        self.process.terminate()
        self.process.wait(30)


def _answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz")
        return connection.getresponse().status > 0
    return False


class SingleTests(KeeperMixin, KeeperTestCase):
    """A gateway without workers: the keeper is in its process."""

    def serving(self):
        """The processes that serve clients."""
        return [self.running()]

    def test_sockets(self):
        """The sockets belong to the user of the gateway alone, and are removed when it stops."""
        gateway = self.start()
        for path in self.socketFiles():
            found = os.stat(path)
            self.assertTrue(stat.S_ISSOCK(found.st_mode))
            self.assertEqual((stat.S_IMODE(found.st_mode), found.st_uid), (0o600, os.getuid()))
        gateway.stop()
        self.assertEqual([path for path in self.socketFiles() if os.path.exists(path)], [])

    def test_noPIDFile(self):
        """Without a pid file the rendezvous is in a private folder, which is removed when the gateway stops."""
        port = freePort()
        ini = self.ini(f"metrics = 127.0.0.1:{port}").replace(f"pid = {self.pidFile}\n", "")
        folder = os.path.join(self.folder, "temporary")
        os.mkdir(folder)
        environ = {**environment(), "TMPDIR": folder}
        self.gateway = gateway = _Started(self, ini, environ)
        waitUntil(lambda: _answers(port), "the port for metrics answers")
        (private,) = os.listdir(folder)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, private)).st_mode), 0o700)
        self.assertEqual(os.listdir(os.path.join(folder, private)), ["socket"])
        gateway.end()
        self.assertEqual(os.listdir(folder), [])

    def test_living(self):
        """A second gateway with the same sockets does not start, and the first one serves on."""
        self.start()
        other = os.path.join(self.folder, "other.ini")
        with open(other, "w", encoding="ascii") as opened:
            opened.write(
                f"[mailgate]\nadmin = unix:{self.pidFile}.admin\n{self.processes}"
                f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{freePort()}\nproxy_pass = 127.0.0.1:9\n"
            )
        ended = subprocess.run(
            [*FOREGROUND, "mailgate", "--config", other], env=environment(), capture_output=True, timeout=30
        )
        self.assertEqual(ended.returncode, CANNOT_LISTEN)
        self.assertIn(b"for the keeper: another process listens there", ended.stderr)
        self.assertNotIn(b"Traceback", ended.stderr)
        self.assertTrue(self.isAnswering())

    def test_stale(self):
        """The socket files of a gateway that was killed are replaced."""
        first = self.start()
        first.signal(signal.SIGKILL)
        first.status()
        self.assertTrue(all(map(os.path.exists, self.socketFiles())))
        self.start()
        self.assertTrue(self.isAnswering())

    def test_kept(self):
        """What admin and metrics say takes effect after a restart."""
        self.start()
        self.gateway.configure(self.ini(f"admin = off\nmetrics = 127.0.0.1:{freePort()}"))
        self.reload()
        self.told("admin changed; it takes effect after a restart")
        self.told("metrics changed; it takes effect after a restart")
        waitUntil(self.isAnswering, "the admin server answers")

    def test_keptWithoutTLS(self):
        """A unix socket has no TLS after a reload with an C{admin} that has."""
        self.start()
        write = os.path.join(self.folder, "tokens")
        with open(write, "w") as file:
            file.write("ops admin 3nV0cXh0aQ9bYxPq7sLk2e\n")
        os.chmod(write, 0o600)
        pair = f"admin_ssl_certificate = {self.folder}/server.crt\nadmin_ssl_certificate_key = {self.folder}/server.key"
        self.gateway.configure(self.ini(f"admin = 127.0.0.1:{freePort()} ssl\nadmin_token_file = {write}\n{pair}"))
        self.reload()
        self.told("admin changed; it takes effect after a restart")
        waitUntil(self.isAnswering, "the admin server answers")

    def test_upgradeCancelled(self):
        """A new process whose upgrade is cancelled leaves the sockets to the old one."""
        self.start()
        before = self.running()
        # The old process stops while the new one starts.
        os.kill(before, signal.SIGUSR2)
        self.told("received SIGUSR2")
        os.kill(before, signal.SIGTERM)
        self.gateway.status(30)
        waitUntil(lambda: not any(map(os.path.exists, self.socketFiles())), "the files are removed")

    def test_reload(self):
        """One process serves on, with the sessions of both configurations."""
        self.start()
        self.reloadThrice()
        self.assertEqual(self.members(), [self.running()])


class WorkersTests(KeeperMixin, KeeperTestCase):
    """A gateway with workers: the keeper is a process of its own."""

    processes = WORKERS + WITH_KEEPER

    def serving(self):
        """The processes that serve clients."""
        return self.workers()

    def test_killed(self):
        """A keeper that is killed is replaced at once, and all workers link to the next one."""
        self.start()
        client = self.loggedIn("imap")
        (keeper,) = self.keepers()
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        os.kill(keeper, signal.SIGKILL)
        self.replaced(keeper)
        self.told(f"keeper {keeper} was killed by SIGKILL; starting another now")
        waitUntil(lambda: self.knows(*self.workers()), "the next keeper knows the workers")
        self.assertServes(client)
        self.gateway.stop()
        self.assertNoTraceback()

    def test_zygoteKilled(self):
        """If the zygote is killed, its keeper hands over to that of the next one, also what ended workers counted."""
        self.start()
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        self.counted()
        zygote, (keeper,) = self.zygote(), self.keepers()
        os.kill(zygote, signal.SIGKILL)
        self.told(f"zygote {zygote} of the keeper was killed by SIGKILL; starting another now")
        waitUntil(lambda: self.zygote() not in (0, zygote) and self.keepers(), "another zygote runs")
        waitUntil(lambda: not runs(keeper), "the earlier keeper has left")
        waitUntil(lambda: self.knows(*self.workers()), "the next keeper knows the workers")
        self.assertEqual(self.accepted(), 3)
        self.assertServes(self.loggedIn("imap"))
        self.gateway.stop()
        self.assertNotIn("did not receive the state", self.gateway.log())
        self.assertNoTraceback()

    def counted(self):
        """Let three clients log in, and all workers end that have served them."""
        for _ in range(3):
            self.leave(self.loggedIn("imap"))
        waitUntil(lambda: self.accepted() == 3, "the logins are counted")
        old, (keeper,) = set(self.workers()), self.keepers()
        self.reload()
        self.replaced(keeper)
        waitUntil(lambda: self.isAnswering() and not old & set(self.members()), "the workers have ended")
        self.assertEqual(self.accepted(), 3)

    def accepted(self):
        """The accepted logins since the start, as the keeper knows; -1 if it does not answer."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("/api/1/stats")[1]["logins"]["accepted"]["total"]
        return -1

    def test_bothKilled(self):
        """If keeper and zygote are killed, others replace them, and clients are served meanwhile. No sum falls."""
        self.start()
        self.counted()
        zygote, (keeper,) = self.zygote(), self.keepers()
        os.kill(zygote, signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        os.kill(zygote, signal.SIGKILL)
        self.assertServes(self.loggedIn("imap"))
        waitUntil(lambda: self.zygote() not in (0, zygote) and self.keepers(), "another zygote runs")
        waitUntil(lambda: self.accepted() == 4, "what was counted before is known")
        waitUntil(lambda: self.isAnswering() and self.knows(*self.workers()), "the next keeper knows the workers")
        self.assertNoTraceback()

    def test_reload(self):
        """Each reload has a new keeper; the earlier one leaves. It lists old workers that have sessions."""
        self.start()
        client = self.loggedIn("imap")
        old = self.workers()
        self.reloadThrice()
        waitUntil(lambda: len(self.keepers()) == 1, "one keeper is left")
        waitUntil(lambda: set(old) & set(self.members()), "the keeper knows the worker with the session")
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        before = len(self.gateway.descriptors())
        for _ in range(3):
            self.reload()
        waitUntil(lambda: len(self.keepers()) == 1, "one keeper is left")
        self.assertServes(client)
        self.leave(client)
        waitUntil(lambda: len(self.gateway.descriptors()) <= before, "the master has no more descriptors than before")
        self.assertNoTraceback()

    def test_workerKilled(self):
        """A worker that is killed leaves the list, and its successor joins it."""
        self.start()
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        first = self.workers()[0]
        os.kill(first, signal.SIGKILL)
        waitUntil(lambda: first not in self.workers() and self.knows(*self.workers()), "its successor joins")
        waitUntil(lambda: first not in self.members(), "it is gone")

    def test_hangs(self):
        """A keeper that hangs at a reload is killed; the next one serves."""
        self.start()
        (keeper,) = self.keepers()
        os.kill(keeper, signal.SIGSTOP)
        self.reload()
        waitUntil(self.isAnswering, "the next keeper answers", 30)
        waitUntil(lambda: not runs(keeper), "it was killed", 30)
        self.assertIn(f"keeper {keeper} did not stop in time; killing it", self.gateway.log())

    def test_masterKilled(self):
        """When the master is killed, the keeper exits, so that the next gateway can take its sockets."""
        first = self.start()
        (keeper,), zygote = self.keepers(), self.zygote()
        first.signal(signal.SIGKILL)
        first.status()
        waitUntil(lambda: not runs(keeper) and not runs(zygote), "the keeper is gone")
        self.noneListens()
        self.start()
        self.assertTrue(self.isAnswering())

    def noneListens(self):
        """Wait until the workers of a killed master have closed their ports, which the next gateway needs."""
        waitUntil(lambda: not any(map(accepts, self.ports.values())), "no worker listens")

    def test_masterAndZygoteKilled(self):
        """When both are killed, the keeper waits for no other one: the next gateway can start at once."""
        first = self.start()
        (keeper,), zygote = self.keepers(), self.zygote()
        os.kill(zygote, signal.SIGSTOP)
        first.signal(signal.SIGKILL)
        os.kill(zygote, signal.SIGKILL)
        first.status()
        waitUntil(lambda: not runs(keeper), "the keeper is gone")
        self.noneListens()
        self.start()
        self.assertTrue(self.isAnswering())

    def test_notStarted(self):
        """A gateway whose keeper cannot start serves without it, says so in one line, and goes on trying."""
        pair = self.authority.sign("client")
        self.start(self.ini(mail=f"proxy_ssl_certificate = {pair.certificate}\nproxy_ssl_certificate_key = {pair.key}"))
        (keeper,) = self.keepers()
        os.rename(pair.key, f"{pair.key}.away")
        os.kill(keeper, signal.SIGKILL)
        self.told("the keeper did not start: ")
        lines = [line for line in self.gateway.log().splitlines() if "the keeper did not start: " in line]
        self.assertIn("client", lines[0])
        self.assertTrue(lines[0].endswith("the gateway serves without it"), lines[0])
        self.assertServes(self.loggedIn("imap"))
        os.rename(f"{pair.key}.away", pair.key)
        waitUntil(self.isAnswering, "a keeper starts", 40)
        self.gateway.stop()

    def test_user(self):
        """The keeper is the user of the workers, and this user owns the sockets."""
        name = next(usersWithGroups(), "")
        if os.getuid() or not name:
            return
        os.chmod(self.folder, 0o777)
        self.start(self.ini(f"user = {name}"))
        (keeper,) = self.keepers()
        uid = os.stat(f"/proc/{keeper}").st_uid
        self.assertNotEqual(uid, 0)
        self.assertEqual({os.stat(path).st_uid for path in self.socketFiles()}, {uid})
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
        os.kill(keeper, signal.SIGKILL)
        self.replaced(keeper)
        self.reload()
        waitUntil(lambda: self.isAnswering() and self.knows(*self.workers()), "the keeper knows the workers")
        self.gateway.stop()
        self.assertEqual([path for path in self.socketFiles() if os.path.exists(path)], [])

    def test_uid(self):
        """With twistd's C{--uid} all processes become that user, who owns the sockets then."""
        name = next(usersWithGroups(), "")
        if os.getuid() or not name:
            return
        os.chmod(self.folder, 0o777)
        # The keeper reads the configuration and opens the log as that user.
        os.chmod(os.path.join(self.folder, "server.key"), 0o644)
        log = os.path.join(self.folder, "gateway.log")
        os.close(os.open(log, os.O_WRONLY | os.O_CREAT))
        os.chmod(log, 0o666)
        found = pwd.getpwnam(name)
        self.start(command=[*FOREGROUND, "--uid", name, "--gid", str(found.pw_gid)])
        (keeper,) = self.keepers()
        uid = os.stat(f"/proc/{keeper}").st_uid
        self.assertNotEqual(uid, 0)
        self.assertEqual({os.stat(path).st_uid for path in self.socketFiles()}, {uid})
        waitUntil(lambda: self.knows(*self.workers()), "the keeper knows the workers")
