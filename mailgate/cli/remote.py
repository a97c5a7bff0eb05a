# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
C{mailgate reload}, C{drain} and so on, one for each of L{mailgate.process.commands}: send the command to the running
gateway, and wait for its answer.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timezone
from typing import Any

from attrs import NOTHING, fields

from mailgate.cli.adminclient import NoAnswer
from mailgate.cli.asking import duration, foundPlace
from mailgate.cli.helptext import helpTexts
from mailgate.cli.remaining import Remaining
from mailgate.config import load, read, readOne
from mailgate.directives import ConfigurationError, Problem
from mailgate.process.answer import Answer
from mailgate.process.commands import COMMANDS, SUBJECTS, BackendAddress, CommandError, OperatorCommand, encode
from mailgate.process.commandsocket import socketPath
from mailgate.process.tables import objects
from mailgate.system.exitstatus import (
    BAD_CONFIGURATION,
    CUT,
    NOT_PERMITTED,
    NOT_RUNNING,
    NOTHING_MATCHED,
    REFUSED,
)
from mailgate.system.pidfile import PIDSettings, predecessor

__all__ = ["addCommands"]

_LONGEST = 16 * 1024 * 1024
"""Bytes of an answer."""
_GIVEN = "given_"
"""Prefix of the command's own arguments in the parsed command line."""
_WORDS = ("reload", "drain", "stop", "upgrade")
"""The commands of the previous release, which it reads as bare words."""


class _Conversation:
    """
    The conversation on the command socket of a gateway.

    @param path: the path of the socket.
    @param timeout: seconds for the whole conversation; L{None}: no limit.
    """

    def __init__(self, path: str, timeout: float | None) -> None:
        self._path = path
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        self._rest = b""
        self._sent = False

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def begin(self) -> Any:
        """Connect; return the greeting of the gateway."""
        try:
            self._limit()
            self._socket.connect(self._path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                reason = f"no gateway is running: cannot connect to {self._path}"
                raise NoAnswer(reason, NOT_RUNNING) from None
            reason, status = f"{self._path}: cannot connect: {error.strerror or error}", REFUSED
            if error.errno in (errno.EACCES, errno.EPERM):
                reason, status = f"{reason}; run the command as root or as the user that started it", NOT_PERMITTED
            raise NoAnswer(reason, status) from None
        return self.line()

    def say(self, line: bytes) -> None:
        """Send C{line}."""
        self._sent = True
        try:
            self._socket.sendall(line)
        except OSError:
            raise NoAnswer("the gateway closed the connection", REFUSED) from None

    def line(self) -> Any:
        """Return the next line of JSON, an object."""
        while b"\n" not in self._rest:
            data = self._receive()
            if not data:
                raise NoAnswer("the gateway closed the connection without an answer", REFUSED)
            self._rest += data
            if len(self._rest) > _LONGEST:
                raise NoAnswer(f"{self._path} is not a command socket of mailgate", REFUSED)
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise NoAnswer(f"{self._path} is not a command socket of mailgate", REFUSED)
        return found

    def end(self) -> None:
        """Wait until the gateway exits, which closes the connection."""
        while self._receive():
            continue

    def _receive(self) -> bytes:
        self._limit()
        try:
            return self._socket.recv(65536)
        except TimeoutError:
            consequence = "the gateway may still carry out the command" if self._sent else "the command was not sent"
            raise NoAnswer(f"no answer in time; {consequence}", REFUSED) from None
        except OSError:
            return b""

    def _limit(self) -> None:
        if self._deadline is not None:
            # 0 would make the socket non-blocking.
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))


def _ask(command: OperatorCommand, arguments: Any, path: str, timeout: float | None) -> tuple[int, Answer]:
    """Send the command; return the pid of the process that received it, and its answer."""
    with _Conversation(path, timeout) as conversation:
        greeting = conversation.begin()
        if "mailgate" not in greeting:
            raise NoAnswer(f"{path} is not a command socket of mailgate", REFUSED)
        conversation.say(_request(command, arguments, greeting))
        found = conversation.line()
        answer = Answer(
            bool(found.get("done")),
            tuple(found.get("reasons", ())),
            found.get("cut", 0),
            found.get("pid"),
            bool(found.get("isUnknown")),
            tuple(found.get("rows", ())),
        )
        if command.endsProcess:
            conversation.end()
        return greeting["pid"], answer


def _request(command: OperatorCommand, arguments: Any, greeting: Mapping[str, Any]) -> bytes:
    """The line that the gateway of this C{greeting} understands."""
    if command.name in greeting.get("commands", ()):
        return encode(command, arguments)
    # A gateway of an earlier release, which this command may be about to upgrade.
    if "commands" in greeting or command.name not in _WORDS:
        raise NoAnswer(f"the running gateway is older and has no command {command.name}: run mailgate upgrade", REFUSED)
    return command.name.encode("ascii") + b"\n"


def _pidFile(arguments: argparse.Namespace) -> str:
    """
    Return the path of the gateway's pid file.

    @raise ConfigurationError: the configuration cannot be read or does not say it. For a command that reads the
        configuration: the configuration has any error.
    """
    given: str | None = arguments.pid
    if given is not None and arguments.config is None:
        # The gateway checks the configuration. It may read files that this user may not.
        return os.path.abspath(given)
    if arguments.command.readsConfiguration:
        found = load(arguments.config)[PIDSettings].path
    else:
        # A gateway must be stoppable while its configuration has errors.
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
        pidFile = _pidFile(arguments)
        with _meanwhile(arguments, pidFile):
            pid, answer = _ask(arguments.command, given, socketPath(pidFile), arguments.timeout)
    except CommandError as error:
        arguments.parser.error(str(error))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except NoAnswer as error:
        print(error, file=sys.stderr)
        return error.status
    if answer.done:
        _print(arguments, pid, answer)
        if arguments.command.lists:
            _warn(pidFile)
    for reason in answer.reasons:
        print(reason, file=sys.stderr)
    if answer.isUnknown:
        return NOTHING_MATCHED
    if answer.reasons or not answer.done:
        return REFUSED
    return CUT if answer.cut else 0


def _meanwhile(arguments: argparse.Namespace, pidFile: str) -> AbstractContextManager[object]:
    """What happens while the command waits for its answer."""
    if not arguments.command.showsRemaining:
        return nullcontext()
    try:
        return Remaining(foundPlace(arguments.config, pidFile))
    except ConfigurationError:
        # The gateway has no admin server.
        return nullcontext()


def _print(arguments: argparse.Namespace, pid: int, answer: Answer) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of groups may be any text; a terminal may be limited to ASCII.
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments.command.lists and arguments.json:
        print(json.dumps(objects(answer.rows, datetime.now(timezone.utc)), indent=2))
    else:
        print(arguments.command.tell(pid, answer))


def _warn(pidFile: str) -> None:
    """Say which sessions the answer about backends does not have."""
    earlier = predecessor(pidFile)
    if earlier is not None:
        print(
            f"process {earlier} still serves sessions from before the upgrade: they are not counted here, and orders do"
            f" not reach them; send it SIGTERM to end them",
            file=sys.stderr,
        )


def addCommands(commands: Any) -> None:
    """
    Add a parser for each command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    subjects: dict[str, Any] = {}
    for command in COMMANDS.values():
        subject, _, word = command.name.rpartition(" ")
        if subject and subject not in subjects:
            subjects[subject] = _addSubject(commands, subject)
        parsers = subjects.get(subject, commands)
        parser = parsers.add_parser(word, help=command.summary, **helpTexts(command.description, _statuses(command)))
        parser.add_argument("-c", "--config", metavar="FILE", help="the configuration; its pid finds the gateway")
        parser.add_argument("--pid", metavar="FILE", help="the pid file of the gateway, instead of the configured one")
        default = "no limit" if command.timeout is None else f"{command.timeout:g}s"
        parser.add_argument(
            "--timeout",
            metavar="TIME",
            type=duration,
            default=command.timeout,
            help=f"how long to wait for the answer (default: {default})",
        )
        if command.lists:
            parser.add_argument("--json", action="store_true", help="print a JSON array, for programs")
        for each in fields(command.arguments):
            _addArgument(parser, each)
        parser.set_defaults(run=_run, command=command, parser=parser)


def _addSubject(commands: Any, subject: str) -> Any:
    """Add the parser for a first word of commands of two words; return the object to which their parsers are added."""
    summary, description = SUBJECTS[subject]
    parser = commands.add_parser(subject, help=summary, description=description)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _statuses(command: OperatorCommand) -> dict[int, str]:
    """What each exit status of a command means."""
    statuses = {
        0: "done",
        REFUSED: "refused by the gateway, or no answer in time",
        NOTHING_MATCHED: "no server has the address",
        NOT_RUNNING: "no gateway is running",
        CUT: "done, but proxied sessions were cut",
        NOT_PERMITTED: "this user may not connect to the gateway",
        BAD_CONFIGURATION: "the configuration is bad, or has no pid",
    }
    if command.lists:
        statuses[REFUSED] = "refused, or not all workers answered in time; what is known is printed"
        del statuses[CUT]
    if command.arguments is not BackendAddress:
        del statuses[NOTHING_MATCHED]
    return statuses


def _addArgument(parser: argparse.ArgumentParser, argument: Any) -> None:
    """Add an argument of a command to its parser. An argument with a default becomes an option."""
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
    Return the arguments of the command in the C{parsed} command line.

    @raise CommandError: an argument is invalid.
    """
    given = {name.removeprefix(_GIVEN): value for name, value in vars(parsed).items() if name.startswith(_GIVEN)}
    return parsed.command.made(given)
