# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
C{mailgate reload}, C{drain}, C{stop} and C{upgrade}: to ask the gateway that runs, and to wait for its answer.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import sys
import time
from typing import Any

from mailgate.config import load, read, readOne
from mailgate.directives import ConfigurationError, Problem, seconds
from mailgate.process.commandsocket import socketPath
from mailgate.process.operation import Answer
from mailgate.system.exitstatus import BAD_CONFIGURATION, CUT
from mailgate.system.pidfile import PIDSettings

__all__ = ["addCommands"]

REFUSED = 1
UNAVAILABLE = 69
"""C{EX_UNAVAILABLE} of sysexits.h: no gateway runs."""
NOT_PERMITTED = 77
"""C{EX_NOPERM}."""

_LONGEST = 1024 * 1024
_STATUSES = (
    f"Exit status: 0 done; {REFUSED} refused, or no answer in time; {UNAVAILABLE} no gateway runs; {CUT} done, but"
    f" proxied sessions were cut; {NOT_PERMITTED} not for this user; {BAD_CONFIGURATION} the configuration cannot be"
    " used."
)


class _NoAnswer(Exception):
    """What to tell the operator, and the exit status."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class _Conversation:
    """With the gateway whose socket is C{path}; all of it takes C{timeout} seconds at most, if there are any."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self._path = path
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        self._rest = b""
        self._asked = False

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def begin(self) -> Any:
        """Connect; gives what the gateway says of itself."""
        try:
            self._limit()
            self._socket.connect(self._path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                reason = f"no mailgate runs: nobody answers at {self._path}"
                raise _NoAnswer(reason, UNAVAILABLE) from None
            status = NOT_PERMITTED if error.errno in (errno.EACCES, errno.EPERM) else REFUSED
            raise _NoAnswer(f"{self._path}: {error.strerror or error}", status) from None
        return self.line()

    def say(self, word: str) -> None:
        """Send a line."""
        self._asked = True
        try:
            self._socket.sendall(word.encode("ascii") + b"\n")
        except OSError:
            raise _NoAnswer("it has gone", REFUSED) from None

    def line(self) -> Any:
        """The next JSON line."""
        while b"\n" not in self._rest:
            data = self._receive()
            if not data:
                raise _NoAnswer("it has ended without an answer", REFUSED)
            self._rest += data
            if len(self._rest) > _LONGEST:
                raise _NoAnswer(f"{self._path} is no mailgate's", REFUSED)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _NoAnswer(f"{self._path} is no mailgate's", REFUSED)
        return found

    def end(self) -> None:
        """Wait until the gateway's process ends."""
        while self._receive():
            continue

    def _receive(self) -> bytes:
        self._limit()
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            become = "it may yet come to be done" if self._asked else "it was not even asked"
            raise _NoAnswer(f"no answer in time; {become}", REFUSED) from None
        except OSError:
            return b""

    def _limit(self) -> None:
        if self._deadline is not None:
            # 0 would not be to wait at all.
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))


def _ask(name: str, path: str, timeout: float | None) -> tuple[int, Answer]:
    """The number of the process that was asked, and its answer."""
    with _Conversation(path, timeout) as conversation:
        greeting = conversation.begin()
        if "mailgate" not in greeting:
            raise _NoAnswer(f"{path} is no mailgate's", REFUSED)
        conversation.say(name)
        said = conversation.line()
        answer = Answer(bool(said.get("done")), tuple(said.get("reasons", ())), said.get("cut", 0), said.get("pid"))
        if name in ("drain", "stop"):
            conversation.end()
        return greeting["pid"], answer


def _tell(name: str, pid: int, answer: Answer) -> str:
    if name == "upgrade":
        return f"process {answer.pid} has taken over from process {pid}, whose sessions go on until they end"
    if name == "reload":
        return f"process {answer.pid or pid} has reloaded its configuration"
    cut = f"{answer.cut} proxied session(s) were cut" if answer.cut else "no proxied session was cut"
    return f"process {pid} has ended; {cut}"


def _pidFile(arguments: argparse.Namespace) -> str:
    """
    Where the gateway's pid file is.

    @raise ConfigurationError: that is not known; with C{reload} also where anything else is wrong.
    """
    given: str | None = arguments.pid
    if given is not None and arguments.config is None:
        # The gateway looks at its configuration itself, and may have rights that whoever asks has not.
        return os.path.abspath(given)
    if arguments.name == "reload":
        found = load(arguments.config)[PIDSettings].path
    else:
        # At night one wants to stop what has a bad configuration, too.
        found = readOne(read(arguments.config), arguments.config, PIDSettings).path
    if given is not None:
        return os.path.abspath(given)
    if found is None:
        reason = "is not given, and so the gateway cannot be found: set it, or use --pid FILE"
        raise ConfigurationError([Problem(arguments.config, reason, "mailgate", "pid")])
    return found


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config is None and arguments.pid is None:
        arguments.parser.error("--config FILE or --pid FILE is needed")
    try:
        pid, answer = _ask(arguments.name, socketPath(_pidFile(arguments)), arguments.timeout)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except _NoAnswer as error:
        print(error, file=sys.stderr)
        return error.status
    if not answer.done:
        for reason in answer.reasons:
            print(reason, file=sys.stderr)
        return REFUSED
    print(_tell(arguments.name, pid, answer))
    return CUT if answer.cut else 0


def _time(value: str) -> float:
    try:
        return seconds(value, "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_COMMANDS = {
    "reload": (
        "put the configuration into force",
        "Checks the configuration, and has the gateway that runs put it into force, as SIGHUP does. Says what is wrong"
        " with it, if anything is; then nothing has changed. Without --config the gateway alone looks at it.",
    ),
    "drain": (
        "let nobody in any more, and end when all have left",
        "Has the gateway that runs close its ports, as SIGQUIT does, and waits until all who are logged in have left,"
        " or worker_shutdown_timeout is over.",
    ),
    "stop": (
        "end all sessions and the gateway",
        "Has the gateway that runs end all sessions, as SIGTERM does, and waits until it has ended.",
    ),
    "upgrade": (
        "have the mailgate that is installed now take over",
        "Has the gateway that runs start its own command again, as SIGUSR2 does, and waits until the new process"
        " serves in its place. If it does not come up, the one that runs goes on.",
    ),
}


def addCommands(commands: Any) -> None:
    """Add the parsers of these commands to C{commands}, argparse's own."""
    for name, (summary, description) in _COMMANDS.items():
        parser = commands.add_parser(name, help=summary, description=f"{description} {_STATUSES}")
        parser.add_argument("-c", "--config", metavar="FILE", help="the configuration, which names pid")
        parser.add_argument("--pid", metavar="FILE", help="the pid file, in the place of the one of the configuration")
        default = None if name == "drain" else 60.0
        told = "as long as it takes" if default is None else "60s"
        parser.add_argument(
            "--timeout", metavar="TIME", type=_time, default=default, help=f"how long to wait for the answer ({told})"
        )
        parser.set_defaults(run=_run, name=name, parser=parser)
