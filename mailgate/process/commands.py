# -*- test-case-name: mailgate.test.process.test_commands -*-
"""
The commands that operators give to a running gateway. The command socket (L{mailgate.process.commandsocket}) and the
command line (L{mailgate.cli.remote}) are made from the table L{COMMANDS}.

On the socket a command is one line of JSON, such as C{{"do": "reload"}}, with its arguments beside C{do}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from attrs import NOTHING, asdict, field, fields, frozen
from twisted.internet.defer import Deferred

from mailgate.process.answer import Answer
from mailgate.process.operation import Operation
from mailgate.process.tables import standing, table
from mailgate.upstream.standing import ORDERS

__all__ = [
    "COMMANDS",
    "SUBJECTS",
    "BackendAddress",
    "CommandError",
    "NoArguments",
    "OperatorCommand",
    "argument",
    "decode",
    "encode",
]

_SHOWN = 40
"""Characters of an unknown word that an error quotes."""

_KINDS = {str: "printable text", int: "a whole number", float: "a number", bool: "true or false"}


class CommandError(Exception):
    """A line is not a valid command; the text says why."""


def argument(help: str, kind: type = str, default: Any = NOTHING) -> Any:
    """
    Declare an argument of a command: a field of the command's frozen attrs class. The class raises C{ValueError} for a
    value of another kind.

    @param help: what the argument is for, in a few words, for C{--help}.
    @param kind: C{str}, C{int}, C{float} or C{bool}.
    @param default: the value of an argument that is not given. An argument without a default is required; a C{bool} is
        false by default.
    @return: the attrs field.
    """
    if kind is bool and default is NOTHING:
        default = False

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if value is None and default is None:
            return
        isGood = type(value) is kind or (kind is float and type(value) is int)
        if isGood and kind is float:
            # Python's JSON reader accepts NaN and Infinity.
            isGood = -math.inf < value < math.inf
        if not isGood or (kind is str and not value.isprintable()):
            raise ValueError(f'"{attribute.name}" must be {_KINDS[kind]}')

    return field(default=default, validator=check, metadata={"help": help, "kind": kind})


@frozen
class NoArguments:
    """For a command without arguments."""


@frozen
class BackendAddress:
    """
    The argument of an order for a backend.

    @ivar address: its address.
    """

    address: str = argument("the address of the server, as mailgate backend list or the configuration has it")


def _done(pid: int, answer: Answer) -> str:
    return f"process {pid} carried out the command"


@frozen
class OperatorCommand:
    """
    One command.

    @ivar name: the word for C{do} and for the command line. Commands of one subject have two words, of which the first
        is in L{SUBJECTS}.
    @ivar run: carries out the command in one process, with an instance of C{arguments}.
    @ivar summary: what the command does, in a few words, for the list of commands.
    @ivar description: what the command does, in sentences, for C{--help}.
    @ivar arguments: the frozen attrs class of the arguments, each an L{argument}.
    @ivar tell: returns what the command line prints after a success, from the pid of the process and its answer.
    @ivar timeout: default of C{--timeout}, in seconds: how long the command line waits; L{None}: no limit.
    @ivar endsProcess: whether the process exits after the command; the command line then waits for the exit.
    @ivar showsRemaining: whether the command line says which sessions are left while it waits.
    @ivar lists: whether the answer has rows, which the command line can print as JSON.
    @ivar isLogged: whether the gateway logs the name of the command. Others log more, or change nothing.
    @ivar readsConfiguration: whether the command line checks the configuration before it sends the command.
    """

    name: str
    run: Callable[[Operation, Any], Deferred[Answer]]
    summary: str
    description: str
    arguments: type = NoArguments
    tell: Callable[[int, Answer], str] = _done
    timeout: float | None = 60.0
    endsProcess: bool = False
    showsRemaining: bool = False
    lists: bool = False
    isLogged: bool = True
    readsConfiguration: bool = False

    def made(self, given: Mapping[str, Any]) -> Any:
        """
        Check the arguments of this command.

        @param given: the values, by the names of the arguments.
        @return: an instance of C{arguments}.
        @raise CommandError: an argument is unknown, missing, or of the wrong kind.
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
    """
    Write a command as a line of JSON.

    @param command: the command.
    @param arguments: an instance of the command's C{arguments}.
    """
    given = {name: value for name, value in asdict(arguments).items() if value is not None}
    return json.dumps({"do": command.name, **given}).encode("ascii") + b"\n"


def decode(line: bytes) -> tuple[OperatorCommand, Any]:
    """
    Read a command. A bare word, which the C{mailgate} of the previous release sends, is the command of that name.

    @param line: the line, with or without its line end.
    @return: the command, and an instance of its C{arguments}.
    @raise CommandError: the line is not a valid command.
    """
    given = _given(line)
    name = given.pop("do", None)
    if not isinstance(name, str):
        raise CommandError('the command must be a JSON object, such as {"do": "reload"}')
    command = COMMANDS.get(name)
    if command is None:
        raise CommandError(f"unknown command {_quoted(name)}; use one of {', '.join(sorted(COMMANDS))}")
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


_TEXTS = {
    "drain": (
        "send no new sessions to a server",
        "Make the running gateway send no new sessions to the servers at ADDRESS. Sessions there continue. Before"
        " maintenance, wait until mailgate backend list shows 0 sessions. The order holds over reloads and upgrades,"
        " until mailgate backend resume; a restart forgets it.",
    ),
    "resume": (
        "end drain and down",
        "Make the running gateway send new sessions to the servers at ADDRESS again, after mailgate backend drain or"
        " down. Failures that logins or health checks have found still count.",
    ),
    "down": (
        "treat a server as failed",
        "Make the running gateway send no new sessions to the servers at ADDRESS, as if a health check had found that"
        " they failed. The directive on_down decides about the sessions there. The order holds over reloads and"
        " upgrades, until mailgate backend resume or up; a restart forgets it.",
    ),
    "up": (
        "end drain and down, and forget failures",
        "Make the running gateway send new sessions to the servers at ADDRESS now, whatever logins or health checks"
        " have found. Later failures count again.",
    ),
}


def _order(word: str, operation: Operation, arguments: BackendAddress) -> Deferred[Answer]:
    return operation.orderBackend(word, arguments.address)


def _orders() -> Iterator[OperatorCommand]:
    for word in ORDERS:
        summary, description = _TEXTS[word]
        yield OperatorCommand(
            f"backend {word}",
            partial(_order, word),
            summary,
            description,
            BackendAddress,
            tell=lambda pid, answer: "\n".join(map(standing, answer.rows)),
            lists=True,
            isLogged=False,
        )


SUBJECTS = {
    "backend": (
        "list backends, or take them out for maintenance",
        "List the mail servers that the running gateway sends sessions to, or order what it does with one.",
    )
}
"""For each first word of commands of two words: a few words for the list of commands, and sentences for C{--help}."""

_ALL = (
    OperatorCommand(
        "reload",
        lambda operation, arguments: operation.reload(),
        summary="reload the configuration",
        description="Check the configuration and make the running gateway load it, as SIGHUP does. Sessions continue"
        " with the configuration that they started with. If the configuration has errors, print them; the gateway"
        " keeps its current configuration. With --pid and without --config, only the gateway checks it.",
        tell=lambda pid, answer: f"process {answer.pid or pid} reloaded its configuration",
        readsConfiguration=True,
    ),
    OperatorCommand(
        "drain",
        lambda operation, arguments: operation.drain(),
        summary="refuse new clients, and exit when all sessions have ended",
        description="Make the running gateway refuse new clients, as SIGQUIT does, and wait until it exits. The gateway"
        " disconnects clients that have not logged in. It exits when all proxied sessions have ended, or when"
        " worker_shutdown_timeout expires. Meanwhile print on standard error which sessions are left.",
        tell=_ended,
        timeout=None,
        endsProcess=True,
        showsRemaining=True,
    ),
    OperatorCommand(
        "stop",
        lambda operation, arguments: operation.stop(),
        summary="end all sessions and exit",
        description="Make the running gateway end all sessions and exit, as SIGTERM does, and wait until it exits.",
        tell=_ended,
        endsProcess=True,
    ),
    OperatorCommand(
        "upgrade",
        lambda operation, arguments: operation.upgrade(),
        summary="replace the running gateway with the installed version",
        description="Make the running gateway start its own command line again, as SIGUSR2 does, and wait until the new"
        " process serves in its place. Sessions continue in the old process, which exits after the last one. If the"
        " new process does not start, the running gateway keeps serving.",
        tell=lambda pid, answer: (
            f"process {answer.pid} has taken over from process {pid}, which exits when its sessions have ended"
        ),
    ),
    OperatorCommand(
        "backend list",
        lambda operation, arguments: operation.listBackends(),
        summary="list backends with their states and sessions",
        description="List the mail servers that the running gateway sends sessions to, one on each line: its group,"
        " address and state, for how long it has been in this state, the sessions there, and the reason of the state."
        " States: up, resting (logins failed there), drain (an operator's order), down (the configuration, an"
        " operator's order or a health check).",
        tell=lambda pid, answer: table(answer.rows),
        lists=True,
        isLogged=False,
    ),
    *_orders(),
)

COMMANDS: dict[str, OperatorCommand] = {command.name: command for command in _ALL}
"""All commands, by name."""
