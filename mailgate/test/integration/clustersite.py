# -*- test-case-name: mailgate.test.integration.test_cluster -*-
"""
Two gateways of two workers each that share a store, their authentication service, and two backends.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from mailgate.cli.main import main
from mailgate.test.integration.adminclient import AdminClient
from mailgate.test.integration.authservice import AuthService, deciding
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import WITH_KEEPER, GatewayProcess
from mailgate.test.integration.guessers import login
from mailgate.test.integration.procfs import children
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.redisserver import LossyLink, RedisServer
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address

__all__ = ["AHEAD", "SECRET", "Cluster", "Member"]

SECRET = "the secret that all gateways of the tests share"

AHEAD = 5
"""How many seconds the clock of the second gateway is ahead."""

_WRONG_CLOCK = f"""\
import time

_right, _rightNanoseconds = time.time, time.time_ns
time.time = lambda: _right() + {AHEAD}
time.time_ns = lambda: _rightNanoseconds() + {AHEAD} * 10**9
"""
"""Python imports it at its start, before anything that reads the clock."""


@define
class Member:
    """
    One of the gateways.

    @ivar name: its C{gateway_name}.
    @ivar folder: its files.
    @ivar port: where its IMAP server listens.
    """

    name: str
    folder: str = field(factory=lambda: newFolder("member"))
    port: int = field(factory=freePort)
    gateway: GatewayProcess = field(init=False)

    def login(self, user: str, source: str = "127.50.0.7", password: str = PASSWORD) -> bytes:
        """The answer to a login, without its tag."""
        return login(self.port, source, user, password)[0]

    def session(self, user: str) -> RawClient:
        """A client that has logged in, and stays."""
        client = RawClient(Address("imap", self.port, "none", ""))
        answer = client.login(user, PASSWORD)
        assert answer.startswith(b"OK"), answer
        return client

    def command(self, *words: str) -> tuple[int, str]:
        """The exit status of an operator's command, and what it says."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main((*words, "--pid", os.path.join(self.folder, "pid"), "--timeout", "20s"))
        return status, said.getvalue()

    def does(self, *words: str) -> str:
        """Run a command that succeeds; return what it says."""
        status, said = self.command(*words)
        assert status == 0, f"{words}: {status}, {said}\n{self.gateway.log()}"
        return said

    def answers(self, *words: str) -> Any:
        """The answer to a command that succeeds, read from JSON."""
        return _decoded(self.does(*words, "--json"))

    def sees(self, user: str) -> list[str]:
        """The gateways at which it lists sessions of C{user} that are relayed."""
        rows = self.listed("--user", user)["sessions"]
        return sorted(row["gateway"] for row in rows if row["phase"] == "relay")

    def listed(self, *words: str) -> Any:
        """The JSON of C{mailgate sessions}, also of an incomplete list or an empty one."""
        return _decoded(self.command("sessions", *words, "--json")[1])

    def isStoreUp(self) -> bool:
        """Whether it uses the store."""
        return AdminClient(os.path.join(self.folder, "pid.admin")).scrape().get("mailgate_store_up") == 1.0

    def processes(self) -> list[int]:
        """All its processes, the master first."""
        found = [self.gateway.pid]
        for process in found:  # the list grows during the loop
            found += children(process)
        return found

    def isServing(self) -> bool:
        """Whether its workers and its keeper serve."""
        said = self.gateway.log().rpartition(" starting up.")[2]
        return re.search(r"keeper \d+ serves", said) is not None and re.search(r"workers? .* serve", said) is not None


def _decoded(said: str) -> Any:
    """The JSON of what a command has said. It may have said as well which gateway has not answered in time."""
    begin = said.find("{")
    assert begin >= 0, said
    return json.JSONDecoder().raw_decode(said, begin)[0]


@define
class Cluster:
    """
    Two gateways. They reach the store over a link that can lose packets.

    @ivar more: further lines of C{[mail]}.
    @ivar process: further lines of C{[mailgate]}.
    """

    more: str = ""
    process: str = ""
    store: RedisServer = field(factory=RedisServer)
    backends: tuple[ScriptedBackend, ScriptedBackend] = field(
        factory=lambda: (ScriptedBackend("imap"), ScriptedBackend("imap"))
    )
    members: tuple[Member, Member] = field(factory=lambda: (Member("g1"), Member("g2")))
    link: LossyLink = field(init=False)
    auth: AuthService = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.link = LossyLink(lambda: self.store.port)
        self.auth = AuthService({"imap": ("127.0.0.1", self.backends[0].port)})
        self.auth.start()

    def start(self) -> None:
        """Start both gateways."""
        for member in self.members:
            self.startOne(member)
        waitUntil(lambda: all(member.isServing() for member in self.members), "both gateways serve", 60.0)
        # Each has found the other.
        waitUntil(lambda: all(self.knows(member) == ["g1", "g2"] for member in self.members), "they are one", 20.0)

    def knows(self, member: Member) -> list[str]:
        """The names of the gateways whose sessions a gateway lists."""
        return sorted(each["name"] for each in member.listed()["gateways"])

    def startOne(self, member: Member) -> None:
        """Start a gateway, also again after it has ended."""
        with self._environment(member):
            member.gateway = GatewayProcess(member.folder, self._ini(member), [member.port])

    @contextlib.contextmanager
    def _environment(self, member: Member) -> Iterator[None]:
        """The environment for the start of a gateway: the clock of the second one is ahead."""
        if member is self.members[0]:
            yield
            return
        with open(os.path.join(member.folder, "sitecustomize.py"), "w") as opened:
            opened.write(_WRONG_CLOCK)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (member.folder, before)))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def _ini(self, member: Member) -> str:
        secret = os.path.join(member.folder, "store.secret")
        with open(secret, "w") as opened:
            opened.write(SECRET)
        os.chmod(secret, 0o600)
        servers = "\n    ".join(f"127.0.0.1:{backend.port}" for backend in self.backends)
        return (
            f"[mailgate]\n{WITH_KEEPER}error_log = {member.folder}/gateway.log info\npid = {member.folder}/pid\n"
            f"worker_processes = 2\ngateway_name = {member.name}\nstore = redis://127.0.0.1:{self.link.port}/0\n"
            f"store_secret_file = {secret}\n{self.process}\n"
            f"[mail]\nauth_http = {self.auth.url}\nlimit_exempt = none\n{self.more}\n"
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{member.port}\n"
            f"[upstream pool]\nsticky = user ttl=1h retain=1m\nserver =\n    {servers}\n"
        )

    def placed(self, user: str) -> None:
        """Have the authentication service leave the backend of C{user} to the group."""
        self.auth.manners[user] = deciding(Auth_Server=(), Auth_Port=(), Auth_Upstream="pool")

    def backendOf(self, user: str) -> int:
        """The number of the backend that has heard the name of C{user} last."""
        name = user.encode()
        found = [at for at, backend in enumerate(self.backends) if any(name in heard for heard in backend.heard)]
        assert len(found) == 1, f"{user} was at {found}"
        return found[0]

    def stop(self) -> None:
        """Stop everything. The logs of the gateways have no traceback."""
        try:
            for member in self.members:
                member.gateway.stop()
        finally:
            self.clear()

    def clear(self) -> None:
        """Stop everything but the gateways, and remove the files."""
        self.auth.stop()
        for backend in self.backends:
            backend.stop()
        self.link.stop()
        self.store.stop()
        for member in self.members:
            with contextlib.suppress(AttributeError):
                member.gateway.forget()
            shutil.rmtree(member.folder, ignore_errors=True)
