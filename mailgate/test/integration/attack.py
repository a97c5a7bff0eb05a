# -*- test-case-name: mailgate.test.integration.test_attack -*-
"""
20 addresses of 20 networks guess the password of one user at a gateway, which restarts in the middle. The owner logs in
once a second from a known network. The tests let it last for some seconds, with times and thresholds in proportion.
C{python -m mailgate.test.integration.attack} lets it last for a minute, with the default rules, and prints what the
authentication service was asked.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time

from attrs import define, field

from mailgate.limits.attempt import Attempt, Result
from mailgate.limits.defence import Defence
from mailgate.limits.statefile import StateFile
from mailgate.test.integration.authservice import AuthService
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import WITH_KEEPER, GatewayProcess
from mailgate.test.integration.guessers import Guessers, login
from mailgate.test.integration.scripted import ScriptedBackend

__all__ = ["KNOWN", "OWNER", "SOURCES", "Attacked", "Course", "main"]

SOURCES = tuple(f"127.10.{number}.9" for number in range(20))
"""The addresses of the attackers, in 20 networks."""

KNOWN = "127.1.1.7"
"""Where the owner logs in before the attack."""

OWNER = "joe@example.com"

_NEIGHBOUR = "127.1.1.8"
"""Another address of the same network."""

_CONNECTIONS = 3
_QUESTIONS = 60
_GOAL = 1.0


@define
class Course:
    """
    What happened during an attack.

    @ivar questions: what the authentication service was asked for the attackers.
    @ivar owner: the answers to the owner's logins.
    @ivar longest: the seconds of the owner's longest login.
    @ivar guessers: the attackers.
    """

    questions: int
    owner: set[bytes]
    longest: float
    guessers: Guessers


@define
class Attacked:
    """
    A gateway with a state file and without exempt networks, its authentication service and a backend.

    @ivar more: further lines of C{[mail]}.
    @ivar workers: its worker processes.
    """

    more: str = ""
    workers: int = 1
    folder: str = field(factory=lambda: newFolder("attack"))
    port: int = field(factory=freePort)
    backend: ScriptedBackend = field(factory=lambda: ScriptedBackend("imap"))
    auth: AuthService = field(init=False)
    gateway: GatewayProcess = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.auth = AuthService({"imap": ("127.0.0.1", self.backend.port)})
        self.auth.start()

    def start(self) -> None:
        """Start the gateway, also again after it has stopped."""
        self.gateway = GatewayProcess(
            self.folder,
            f"[mailgate]\n{WITH_KEEPER}error_log = {self.folder}/gateway.log info\n"
            f"worker_processes = {self.workers}\npid = {self.folder}/pid\ngateway_name = g1\n"
            f"[mail]\nauth_http = {self.auth.url}\nlimit_exempt = none\nstate_file = {self._state}\n{self.more}\n"
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{self.port}\n",
            [self.port],
        )
        if self.workers > 1:
            waitUntil(self._isServing, "the workers and the keeper serve", 60.0)

    def _isServing(self) -> bool:
        said = self.gateway.log().rpartition(" starting up.")[2]
        return re.search(r"keeper \d+ serves", said) is not None and re.search(r"workers? .* serve", said) is not None

    def restart(self) -> None:
        """Stop the gateway, and start it again."""
        self.gateway.stop()
        self.start()

    def stop(self) -> None:
        """Stop everything."""
        self.gateway.stop()
        self.clear()

    def clear(self) -> None:
        """Stop everything but the gateway, and remove the files."""
        self.auth.stop()
        self.backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def login(self, source: str, user: str = OWNER, password: str = PASSWORD) -> tuple[bytes, float]:
        """Log in once, as of L{login}."""
        return login(self.port, source, user, password)

    def prepare(self) -> None:
        """Write a state file in which the owner has logged in, some time ago. Do that before L{start}."""
        defence = Defence()
        owner = Attempt(KNOWN, OWNER.encode(), tag=bytes(16))
        defence.record(owner, defence.check(owner).ticket, Result.ACCEPTED)
        StateFile(self._state).write(defence.state())

    @property
    def _state(self) -> str:
        return f"{self.folder}/state"

    def asked(self, *users: str) -> int:
        """How often the service was asked about C{users} with a wrong password."""
        return sum(q["Auth-Pass"] != PASSWORD for user in users for q in self.auth.askedAbout(user))

    def attack(self, seconds: float) -> Course:
        """
        Attack the owner's password. In the middle the gateway restarts.

        @param seconds: for how long the gateway serves during the attack.
        """
        before, answers, longest = self.asked(OWNER), set(), 0.0
        with Guessers(self.port, SOURCES, _CONNECTIONS, lambda number: OWNER) as guessers:
            for half in range(2):
                until = time.monotonic() + seconds / 2
                while (left := until - time.monotonic()) > 0:
                    time.sleep(min(left, _GOAL))
                    answer, taken = self.login(_NEIGHBOUR)
                    answers.add(answer)
                    longest = max(longest, taken)
                if not half:
                    self.restart()
        return Course(self.asked(OWNER) - before, answers, longest, guessers)


def main() -> int:
    """Attack for a minute; return 0 if the goals are reached."""
    options = argparse.ArgumentParser(prog="python -m mailgate.test.integration.attack")
    options.add_argument("--seconds", type=float, default=60.0, help="how long the attack lasts (default: 60)")
    options.add_argument("--workers", type=int, default=1, help="worker processes (default: 1)")
    arguments = options.parse_args()
    attacked = Attacked(workers=arguments.workers)
    attacked.prepare()
    attacked.start()
    try:
        course = attacked.attack(arguments.seconds)
    finally:
        attacked.stop()
    most = _QUESTIONS * max(1.0, arguments.seconds / 60)
    print(f"questions to the authentication service: {course.questions} (goal: at most {most:g})")
    print(f"longest login of the owner from a known network: {course.longest * 1000:.0f} ms (goal: at most 1000)")
    print(f"answers to the owner: {sorted(course.owner)}")
    for answer, count in course.guessers.answers.most_common():
        print(f"{count:8} {answer.decode('ascii', 'backslashreplace') or 'end of the connection'}")
    hasServed = all(answer.startswith(b"OK") for answer in course.owner)
    return 0 if course.questions <= most and course.longest <= _GOAL and hasServed else 1


if __name__ == "__main__":
    sys.exit(main())
