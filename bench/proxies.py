# -*- test-case-name: bench.test.test_proxies -*-
"""
The proxies: how each is found, configured for one worker without logs, and started.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from attrs import define, evolve, frozen

from bench.processes import BenchmarkError, Child, Children
from bench.procfs import openSSL

__all__ = [
    "SEARCH",
    "TLS_BACKENDS",
    "VARIANTS",
    "MailgateProxy",
    "Proxy",
    "Running",
    "Site",
    "freePorts",
    "output",
    "search",
    "writeFile",
]

SEARCH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
"""Folders of daemons, which the user's path may lack."""

TLS_BACKENDS = 10
"""Backends that speak TLS: a group of them is compared with a single one."""

_START = 20
"""Seconds in which a proxy must listen."""


def freePorts(count: int) -> list[int]:
    """Free ports of the loopback."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@frozen
class Site:
    """
    The environment of the proxies: backend, authentication service, and certificate.

    @ivar tlsPorts: the ports of backends that speak TLS. They have the same certificate, which is for localhost.
    @ivar morePorts: the ports of the other plain backends, if there are several.
    """

    folder: str
    backendPort: int
    authPort: int
    certificate: str
    key: str
    both: str
    openFiles: int
    tlsPorts: tuple[int, ...] = ()
    morePorts: tuple[int, ...] = ()

    @property
    def backendPorts(self) -> tuple[int, ...]:
        """The ports of all plain backends."""
        return (self.backendPort, *self.morePorts)


@define
class Running:
    """
    A running proxy.

    @ivar folder: its configuration.
    """

    proxy: Proxy
    children: Children
    processes: list[Child]
    plain: tuple[str, int]
    tls: tuple[str, int]
    folder: str = ""

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self.processes]

    def version(self) -> str:
        """Its version, and that of its OpenSSL."""
        version = self.proxy.version()
        return version if "OpenSSL" in version else f"{version}, {openSSL(self.pids)}"

    def check(self) -> None:
        """
        Check that it runs.

        @raise BenchmarkError: it has exited.
        """
        for child in self.processes:
            child.check()

    def awaitListening(self) -> None:
        """
        Wait until clients can connect.

        @raise BenchmarkError: they cannot.
        """
        deadline = time.monotonic() + _START
        for address in (self.plain, self.tls):
            while not _listens(address):
                self.check()
                if time.monotonic() > deadline:
                    said = self.processes[0].said()
                    raise BenchmarkError(f"{self.proxy.name} does not listen in {_START} seconds; it said: {said}")
                time.sleep(0.02)

    def reload(self, site: Site) -> None:
        """Let it load a configuration with another environment; its sessions stay. Return before that is done."""
        commands = self.proxy.commands(self.folder, site, self.plain[1], self.tls[1])
        self.proxy.reload(self, commands)

    def stop(self) -> None:
        """End it."""
        for child in self.processes:
            self.children.stop(child)


class Proxy(ABC):
    """A proxy under test, one column of the table."""

    name: str
    note = ""
    """What readers of the figures must know about it."""

    asksAuth = True
    """Whether every login queries the authentication service; if not, at most the first login of each user does."""

    memoryField = "Rss"
    """The argument C{field} for L{bench.procfs.memory}."""

    mostSessions = 1_000_000
    """The highest number of sessions that it is measured with."""

    @abstractmethod
    def find(self) -> str | None:
        """Why it cannot be measured here; C{None} if it can."""

    @abstractmethod
    def version(self) -> str:
        """Its version, and that of its OpenSSL if it reports that."""

    @abstractmethod
    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        """Write its configuration into C{folder}; return the command lines that start it."""

    @property
    def folder(self) -> str | None:
        """The folder in which it is started."""
        return None

    def scaled(self, workers: int, site: Site) -> Proxy | None:
        """
        The same proxy for the groups that vary the number of workers.

        @param site: the environment, which may need more than one backend.
        @return: a proxy, or L{None} for a proxy that these groups leave out.
        """
        return None

    def reload(self, running: Running, commands: Sequence[Sequence[str]]) -> None:
        """
        Let the running proxy load its new configuration.

        @param commands: what starts a proxy with that configuration.
        """
        os.kill(running.processes[0].pid, signal.SIGHUP)

    def start(self, site: Site, children: Children) -> Running:
        """
        Start it, and wait until it listens.

        @raise BenchmarkError: it does not.
        """
        folder = tempfile.mkdtemp(dir=site.folder)
        os.chmod(folder, 0o755)  # some of them do not stay root
        plain, tls = freePorts(2)
        commands = self.commands(folder, site, plain, tls)
        processes = [children.start(self.name, command, self.folder) for command in commands]
        running = Running(self, children, processes, ("127.0.0.1", plain), ("127.0.0.1", tls), folder)
        try:
            running.awaitListening()
        except BenchmarkError:
            running.stop()
            raise
        return running


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def writeFile(folder: str, name: str, text: str) -> str:
    """Write a configuration; return its path."""
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path


def output(command: Sequence[str]) -> str:
    """The output of a command, standard output and error."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def search(pattern: str, text: str) -> str:
    """The group of C{pattern} that matches, or C{unknown}."""
    match = re.search(pattern, text)
    return match[1] if match else "unknown"


_MAILGATE = """\
[mailgate]
error_log = {log}
{process}
[mail]
server_name = localhost
{judge}
imap_capabilities =
    IMAP4rev1
    SASL-IR
    ID
    LITERAL+
ssl_certificate = {certificate}
ssl_certificate_key = {key}
ssl_protocols = TLSv1.2 TLSv1.3
ssl_session_cache = shared:SSL:10m
{more}
[server plain]
protocol = {protocol}
listen = 127.0.0.1:{plain}
[server tls]
protocol = imap
listen = 127.0.0.1:{tls} ssl
{sections}
"""

_VERSIONS = """\
import sys, twisted, OpenSSL.SSL
from mailgate._version import __version__
library = OpenSSL.SSL.SSLeay_version(OpenSSL.SSL.SSLEAY_VERSION).decode().split()
print(f"mailgate {__version__}, Python {sys.version.split()[0]}, Twisted {twisted.__version__}, "
      f"pyOpenSSL {OpenSSL.__version__}, OpenSSL {library[1]}")
"""


_MAIN = """\
try:
    from mailgate.cli.main import main
except ImportError:
    # Earlier releases, which may be measured too.
    from mailgate.console import main
main()
"""


_MODULES = """\
import sys, mailgate.tap, twisted.plugins.mailgate_plugin
for name, module in list(sys.modules.items()):
    if name.startswith(("mailgate", "twisted.plugins.mailgate")):
        print("module", module.__file__)
"""


@frozen
class Variant:
    """
    A way to run mailgate that has rows of its own.

    @ivar level: the lowest level of logged events.
    @ivar process: further lines of C{[mailgate]}.
    @ivar more: further lines of C{[mail]}.
    @ivar asksAuth: whether every login queries the authentication service.
    @ivar judge: the line of C{[mail]} that selects the authenticator.
    @ivar sections: further sections.
    @ivar protocol: that of the server without TLS.
    """

    level: str = "error"
    process: str = ""
    more: str = ""
    asksAuth: bool = True
    judge: str = "auth_http = http://127.0.0.1:{authPort}/auth"
    sections: str = ""
    protocol: str = "imap"

    def withLines(self, process: Sequence[str], more: Sequence[str]) -> Variant:
        """
        Return the same way with further lines.

        @param process: those of C{[mailgate]}.
        @param more: those of C{[mail]}.
        """
        return evolve(
            self,
            process="\n".join(filter(None, (self.process, *process))),
            more="\n".join(filter(None, (self.more, *more))),
        )


_TO_TLS = """\
proxy_ssl = on
proxy_ssl_name = localhost
proxy_ssl_trusted_certificate = {certificate}
proxy_ssl_session_reuse = %s
proxy_pass = %s
"""

VARIANTS = {
    "": Variant(),
    "cached": Variant(more="auth_cache_ttl = 60s\nauth_cache_size = 10m", asksAuth=False),
    "info": Variant(level="info"),
    "workers": Variant(process="worker_processes = 2"),
    "TLS behind": Variant(asksAuth=False, judge=_TO_TLS % ("off", "127.0.0.1:{tlsPort}")),
    "TLS behind, resumed": Variant(asksAuth=False, judge=_TO_TLS % ("on", "127.0.0.1:{tlsPort}")),
    "TLS behind, group": Variant(
        asksAuth=False, judge=_TO_TLS % ("on", "store"), sections="[upstream store]\nserver =\n{servers}"
    ),
}


class MailgateProxy(Proxy):
    """
    mailgate, run from C{source} by the interpreter that runs the benchmark.

    @param variant: its name, and its key in L{VARIANTS} unless C{way} is given.
    """

    def __init__(self, source: str, variant: str = "", way: Variant | None = None) -> None:
        self.name = ", ".join(filter(None, ("mailgate", variant)))
        self._source = source
        self._title = variant
        self._variant = VARIANTS[variant] if way is None else way
        self.asksAuth = self._variant.asksAuth

    @property
    def folder(self) -> str | None:
        return self._source

    def scaled(self, workers: int, site: Site) -> Proxy:
        if workers == 1:
            return self
        way = self._variant.withLines([f"worker_processes = {workers}"], [])
        return MailgateProxy(self._source, self._title, way)

    def find(self) -> str | None:
        process, more = self._variant.process, f"{self._variant.more}\n{self._variant.judge}"
        options = [line.partition(" ")[0] for line in f"{process}\n{more}".splitlines() if line]
        with tempfile.TemporaryDirectory() as folder:
            text = f"[mailgate]\n{process}\n[mail]\n{more}\n[server imap]\nlisten = 127.0.0.1:143\n"
            path = writeFile(folder, "gateway.ini", text)
            said = self._python(_MAIN, "check", "--config", path)
        # Earlier releases, which may be measured too, say "is no known option".
        unknown = [option for option in options if re.search(rf"{option}: is (an unknown|no known) option", said)]
        return f"this mailgate does not know {' and '.join(unknown)}" if unknown else None

    def _python(self, program: str, *arguments: str) -> str:
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(
            command, cwd=self._source, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def version(self) -> str:
        return self._python(_VERSIONS).strip()

    def location(self) -> str:
        """
        The folder that all its modules are imported from.

        @raise BenchmarkError: a module is not in C{source}: another mailgate would be measured.
        """
        folder = os.path.realpath(self._source)
        said = self._python(_MODULES)
        paths = re.findall("^module (.*)$", said, re.MULTILINE)
        if not paths:
            raise BenchmarkError(f"mailgate cannot be imported in {self._source}: {said[-500:].strip()}")
        for path in paths:
            if not os.path.realpath(path).startswith(folder + os.sep):
                raise BenchmarkError(f"in {self._source} Python imports mailgate from elsewhere: {path}")
        return folder

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        behind = {
            "authPort": site.authPort,
            "backendPort": site.backendPort,
            "certificate": site.certificate,
            "tlsPort": site.tlsPorts[0] if site.tlsPorts else 0,
            "servers": "".join(f"    127.0.0.1:{port}\n" for port in site.tlsPorts),
        }
        text = _MAILGATE.format(
            log=f"{folder}/error.log {self._variant.level}",
            judge=self._variant.judge.format(**behind),
            sections=self._variant.sections.format(**behind),
            certificate=site.certificate,
            key=site.key,
            protocol=self._variant.protocol,
            process=self._variant.process,
            more=self._variant.more,
            plain=plain,
            tls=tls,
        )
        # With "-c" the start folder is the first one of the module path.
        run = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
        config = writeFile(folder, "gateway.ini", text)
        return [[sys.executable, "-c", run, "-n", "--pidfile=", "mailgate", "--config", config]]
