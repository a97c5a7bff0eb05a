# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
C{mailgate reload}, C{drain} and so on, one for each of L{mailgate.process.commands}: to ask the gateway that runs, and
to wait for its answer.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from attrs import NOTHING, fields

from mailgate.config import load, read, readOne
from mailgate.directives import ConfigurationError, Problem, seconds
from mailgate.process.commands import COMMANDS, CommandError, OperatorCommand, encode
from mailgate.process.commandsocket import socketPath
from mailgate.process.operation import Answer
from mailgate.system.exitstatus import BAD_CONFIGURATION, CUT, NOT_PERMITTED, NOT_RUNNING, REFUSED
from mailgate.system.pidfile import PIDSettings

__all__ = ["addCommands"]

_LONGEST = 1024 * 1024
_GIVEN = "given_"
"""What the names of a command's arguments begin with among what was parsed."""
_WORDS = ("reload", "drain", "stop", "upgrade")
"""What a gateway of the release before knows, as bare words."""
_STATUSES = (
    f"Exit status: 0 done; {REFUSED} refused, or no answer in time; {NOT_RUNNING} no gateway runs; {CUT} done, but"
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
                reason = f"no gateway is running: cannot connect to {self._path}"
                raise _NoAnswer(reason, NOT_RUNNING) from None
            status = NOT_PERMITTED if error.errno in (errno.EACCES, errno.EPERM) else REFUSED
            raise _NoAnswer(f"{self._path}: {error.strerror or error}", status) from None
        return self.line()

    def say(self, line: bytes) -> None:
        """Send C{line}."""
        self._asked = True
        try:
            self._socket.sendall(line)
        except OSError:
            raise _NoAnswer("the gateway closed the connection", REFUSED) from None

    def line(self) -> Any:
        """The next JSON line."""
        while b"\n" not in self._rest:
            data = self._receive()
            if not data:
                raise _NoAnswer("the gateway closed the connection without an answer", REFUSED)
            self._rest += data
            if len(self._rest) > _LONGEST:
                raise _NoAnswer(f"{self._path} is not a command socket of mailgate", REFUSED)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise _NoAnswer(f"{self._path} is not a command socket of mailgate", REFUSED)
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
            become = "the gateway may still carry out the command" if self._asked else "the command was not sent"
            raise _NoAnswer(f"no answer in time; {become}", REFUSED) from None
        except OSError:
            return b""

    def _limit(self) -> None:
        if self._deadline is not None:
            # 0 would not be to wait at all.
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))


def _ask(command: OperatorCommand, arguments: Any, path: str, timeout: float | None) -> tuple[int, Answer]:
    """The number of the process that was asked, and its answer."""
    with _Conversation(path, timeout) as conversation:
        greeting = conversation.begin()
        if "mailgate" not in greeting:
            raise _NoAnswer(f"{path} is not a command socket of mailgate", REFUSED)
        conversation.say(_request(command, arguments, greeting))
        said = conversation.line()
        answer = Answer(bool(said.get("done")), tuple(said.get("reasons", ())), said.get("cut", 0), said.get("pid"))
        if command.endsProcess:
            conversation.end()
        return greeting["pid"], answer


def _request(command: OperatorCommand, arguments: Any, greeting: Mapping[str, Any]) -> bytes:
    """The line that asks the gateway of C{greeting} for C{command}."""
    if "commands" in greeting:
        return encode(command, arguments)
    # One of the release before, which is to be upgraded, say.
    if command.name not in _WORDS:
        raise _NoAnswer(f"the running gateway is older and has no command {command.name}: run mailgate upgrade", REFUSED)
    return command.name.encode("ascii") + b"\n"


def _pidFile(arguments: argparse.Namespace) -> str:
    """
    Where the gateway's pid file is.

    @raise ConfigurationError: that is not known; with a command that reads it also where anything else is wrong.
    """
    given: str | None = arguments.pid
    if given is not None and arguments.config is None:
        # The gateway looks at its configuration itself, and may have rights that whoever asks has not.
        return os.path.abspath(given)
    if arguments.command.readsConfiguration:
        found = load(arguments.config)[PIDSettings].path
    else:
        # At night one wants to stop what has a bad configuration, too.
        found = readOne(read(arguments.config), arguments.config, PIDSettings).path
    if given is not None:
        return os.path.abspath(given)
    if found is None:
        reason = "must be set so that the running gateway can be found; or use --pid FILE"
        raise ConfigurationError([Problem(arguments.config, reason, "mailgate", "pid")])
    return found


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config is None and arguments.pid is None:
        arguments.parser.error("--config FILE or --pid FILE is required")
    try:
        given = _argumentsOf(arguments)
        pid, answer = _ask(arguments.command, given, socketPath(_pidFile(arguments)), arguments.timeout)
    except CommandError as error:
        arguments.parser.error(str(error))
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
    print(arguments.command.tell(pid, answer))
    return CUT if answer.cut else 0


def _time(value: str) -> float:
    try:
        return seconds(value, "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def addCommands(commands: Any) -> None:
    """Add a parser for each command to C{commands}, argparse's own."""
    for command in COMMANDS.values():
        description = f"{command.description} {_STATUSES}"
        parser = commands.add_parser(command.name, help=command.summary, description=description)
        parser.add_argument("-c", "--config", metavar="FILE", help="the configuration, which names pid")
        parser.add_argument("--pid", metavar="FILE", help="the pid file, in the place of the one of the configuration")
        default = "as long as it takes" if command.timeout is None else f"{command.timeout:g}s"
        parser.add_argument(
            "--timeout",
            metavar="TIME",
            type=_time,
            default=command.timeout,
            help=f"how long to wait for the answer ({default})",
        )
        for each in fields(command.arguments):
            _addArgument(parser, each)
        parser.set_defaults(run=_run, command=command, parser=parser)


def _addArgument(parser: argparse.ArgumentParser, argument: Any) -> None:
    """Add an argument of a command: an option if it has a default."""
    word, kind = argument.name.replace("_", "-"), argument.metadata["kind"]
    how: dict[str, Any] = {"help": argument.metadata["help"]}
    if kind is bool:
        how["action"] = "store_true"
    else:
        how |= {"type": kind, "metavar": word.upper()}
    if argument.default is NOTHING:
        parser.add_argument(_GIVEN + argument.name, **how)
    else:
        parser.add_argument(f"--{word}", dest=_GIVEN + argument.name, default=argparse.SUPPRESS, **how)


def _argumentsOf(parsed: argparse.Namespace) -> Any:
    """
    The arguments of the command that was C{parsed}.

    @raise CommandError: one is not good.
    """
    given = {name.removeprefix(_GIVEN): value for name, value in vars(parsed).items() if name.startswith(_GIVEN)}
    return parsed.command.made(given)
