# -*- test-case-name: mailgate.test.process.test_commands -*-
"""
What operators may ask of a gateway that runs: C{COMMANDS} has a line for each command, and what is asked by the socket
(L{mailgate.process.commandsocket}) and on the command line (L{mailgate.cli.remote}) is made from that.

A command is a line of JSON, C{{"do": "reload"}}, with its arguments beside C{do}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from attrs import NOTHING, asdict, field, fields, frozen
from twisted.internet.defer import Deferred

from mailgate.process.operation import Answer, Operation

__all__ = ["COMMANDS", "CommandError", "NoArguments", "OperatorCommand", "argument", "decode", "encode"]

_SHOWN = 40
"""Characters of a word that is not known, in the sentence about it."""

_KINDS = {str: "printable text", int: "a whole number", float: "a number", bool: "true or false"}


class CommandError(Exception):
    """A line is no command; the text says why."""


def argument(help: str, kind: type = str, default: Any = NOTHING) -> Any:
    """
    An argument of a command, as a field of its frozen attrs class.

    @param help: what it is for, in a few words.
    @param kind: C{str}, C{int}, C{float} or C{bool}.
    @param default: its value where it is not given. Without one it has to be given, unless it is a C{bool}, which is
        false then.
    """
    if kind is bool and default is NOTHING:
        default = False

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if value is None and default is None:
            return
        isGood = type(value) is kind or (kind is float and type(value) is int)
        if isGood and kind is float:
            # JSON, as Python reads it, has NaN and Infinity.
            isGood = -math.inf < value < math.inf
        if not isGood or (kind is str and not value.isprintable()):
            raise ValueError(f'"{attribute.name}" must be {_KINDS[kind]}')

    return field(default=default, validator=check, metadata={"help": help, "kind": kind})


@frozen
class NoArguments:
    """The arguments of a command that has none."""


def _only(results: Sequence[Answer]) -> Answer:
    (result,) = results
    return result


def _done(pid: int, answer: Answer) -> str:
    return f"process {pid} carried out the command"


@frozen
class OperatorCommand:
    """
    One command.

    @ivar name: its word, for C{do} and for the command line.
    @ivar run: does it in one process, with an instance of C{arguments}.
    @ivar summary: what it does, in a few words for the list of commands.
    @ivar description: the same in sentences.
    @ivar arguments: the frozen attrs class of its arguments, each an L{argument}.
    @ivar scope: C{process}: the process that is asked does it; C{workers}: each process that serves clients does.
    @ivar combine: makes one answer of those of all processes that have done it.
    @ivar tell: what the command line prints when it is done, from the number of the process and its answer.
    @ivar timeout: seconds that the command line waits for an answer, if the operator does not say; L{None}: no limit.
    @ivar endsProcess: whether the process ends after it: then its end is waited for, too.
    @ivar readsConfiguration: whether the command line checks the configuration before it asks.
    """

    name: str
    run: Callable[[Operation, Any], Deferred[Answer]]
    summary: str
    description: str
    arguments: type = NoArguments
    scope: Literal["process", "workers"] = "process"
    combine: Callable[[Sequence[Answer]], Answer] = _only
    tell: Callable[[int, Answer], str] = _done
    timeout: float | None = 60.0
    endsProcess: bool = False
    readsConfiguration: bool = False

    def made(self, given: Mapping[str, Any]) -> Any:
        """
        Its arguments, from those that are C{given} by name.

        @raise CommandError: one is not known, missing, or of the wrong kind.
        """
        known = {each.name: each for each in fields(self.arguments)}
        for name in given:
            if name not in known:
                raise CommandError(f"{self.name} takes no argument {_quoted(name)}")
        for name, each in known.items():
            if each.default is NOTHING and name not in given:
                raise CommandError(f'{self.name} needs the argument "{name}"')
        try:
            return self.arguments(**given)
        except ValueError as error:
            raise CommandError(f"{self.name}: {error}") from None


def _quoted(word: str) -> str:
    return json.dumps(word if len(word) <= _SHOWN else f"{word[:_SHOWN]}...")


def encode(command: OperatorCommand, arguments: Any) -> bytes:
    """C{command} with C{arguments} as a line."""
    given = {name: value for name, value in asdict(arguments).items() if value is not None}
    return json.dumps({"do": command.name, **given}).encode("ascii") + b"\n"


def decode(line: bytes) -> tuple[OperatorCommand, Any]:
    """
    The command in C{line}, and its arguments. A bare word, as the C{mailgate} of the release before says it, is the
    command of that name.

    @raise CommandError: it is none.
    """
    given = _given(line)
    name = given.pop("do", None)
    if not isinstance(name, str):
        raise CommandError('the command must be a JSON object, such as {"do": "reload"}')
    command = COMMANDS.get(name)
    if command is None:
        raise CommandError(f"unknown command {_quoted(name)}: the commands are {', '.join(sorted(COMMANDS))}")
    return command, command.made(given)


def _given(line: bytes) -> dict[str, Any]:
    text = line.decode("utf-8", "backslashreplace").strip()
    if not text.startswith(("{", "[", '"')):
        return {"do": text} if text else {}
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise CommandError("the command is not valid JSON") from None
    return given if isinstance(given, dict) else {}


def _ended(pid: int, answer: Answer) -> str:
    cut = f"{answer.cut} proxied session(s) were cut" if answer.cut else "no proxied session was cut"
    return f"process {pid} exited; {cut}"


_ALL = (
    OperatorCommand(
        "reload",
        lambda operation, arguments: operation.reload(),
        "reload the configuration",
        "Checks the configuration, and has the gateway that runs put it into force, as SIGHUP does. Says what is wrong"
        " with it, if anything is; then nothing has changed. Without --config the gateway alone looks at it.",
        tell=lambda pid, answer: f"process {answer.pid or pid} reloaded its configuration",
        readsConfiguration=True,
    ),
    OperatorCommand(
        "drain",
        lambda operation, arguments: operation.drain(),
        "refuse new clients, and exit when all sessions have ended",
        "Has the gateway that runs close its ports, as SIGQUIT does, and waits until all who are logged in have left,"
        " or worker_shutdown_timeout is over.",
        tell=_ended,
        timeout=None,
        endsProcess=True,
    ),
    OperatorCommand(
        "stop",
        lambda operation, arguments: operation.stop(),
        "end all sessions and exit",
        "Has the gateway that runs end all sessions, as SIGTERM does, and waits until it has ended.",
        tell=_ended,
        endsProcess=True,
    ),
    OperatorCommand(
        "upgrade",
        lambda operation, arguments: operation.upgrade(),
        "replace the running gateway with the installed version",
        "Has the gateway that runs start its own command again, as SIGUSR2 does, and waits until the new process"
        " serves in its place. If it does not come up, the one that runs goes on.",
        tell=lambda pid, answer: (
            f"process {answer.pid} has taken over from process {pid}, which exits when its sessions have ended"
        ),
    ),
)

COMMANDS: dict[str, OperatorCommand] = {command.name: command for command in _ALL}
"""Those that there are, by name."""
