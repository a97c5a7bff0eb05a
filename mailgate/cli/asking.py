# -*- test-case-name: mailgate.test.cli.test_asking -*-
"""
What the commands that ask the admin server share: where it is, by their options, and their exit statuses.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from mailgate.cli.adminclient import AdminClient, NoAnswer, Place, placeOf, readToken
from mailgate.cli.columns import prepare
from mailgate.cli.helptext import helpTexts
from mailgate.config import read, readOne
from mailgate.directives import ConfigurationError, Problem, seconds
from mailgate.process.commandsocket import socketPath
from mailgate.system.exitstatus import (
    BAD_CONFIGURATION,
    NOT_PERMITTED,
    NOT_RUNNING,
    NOTHING_MATCHED,
    REFUSED,
)
from mailgate.system.pidfile import PIDSettings
from mailgate.watch.settings import AdminAddress, AdminSettings

__all__ = ["Command", "addCommand", "duration", "foundPlace", "printJSON"]

TIMEOUT = 10.0
"""Seconds for each question, by default. The gateway answers within some seconds, also if a worker hangs."""

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server on a wildcard address of this host is asked."""

_REMEDY = (
    "an earlier release has none: run mailgate upgrade; otherwise compare the directive admin, and see the error log"
)

Command = Callable[[AdminClient, argparse.Namespace], int]
"""Runs a command; returns the exit status."""

_STATUSES = {
    0: "done",
    REFUSED: "refused by the gateway, or no complete answer in time; what is known is printed",
    NOTHING_MATCHED: "nothing matched",
    NOT_RUNNING: "no gateway is running",
    NOT_PERMITTED: "this user or token may not do that",
    BAD_CONFIGURATION: "the configuration or another file cannot be read, or the configuration has no admin server",
}


def duration(value: str) -> float:
    """
    Read a duration of the command line.

    @param value: the duration, such as C{90s} or C{1h30m}.
    @raise argparse.ArgumentTypeError: it is none.
    """
    try:
        return seconds(value, "")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def addCommand(
    commands: Any,
    word: str,
    summary: str,
    description: str,
    run: Command,
    statuses: Mapping[int, str] = {},
    argument: str = "",
) -> argparse.ArgumentParser:
    """
    Add a command that asks the admin server.

    @param commands: the object that argparse's C{add_subparsers} returns.
    @param word: its name.
    @param summary: what it does, in a few words.
    @param description: what it does, in sentences.
    @param run: runs it.
    @param statuses: what its exit statuses mean, where that differs; an empty text removes one.
    @param argument: its argument behind the options, as usage has it.
    @return: its parser, for further arguments.
    """
    meanings = {status: text for status, text in {**_STATUSES, **statuses}.items() if text}
    # The generated usage of so many options has ten lines, and stands above each mistake of the command line.
    usage = " ".join(filter(None, ("mailgate", word, "[OPTIONS]", argument)))
    parser: argparse.ArgumentParser = commands.add_parser(
        word, help=summary, usage=usage, **helpTexts(description, meanings)
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    where = parser.add_argument_group("the gateway (--config, --pid or --admin is required)")
    where.add_argument("-c", "--config", metavar="FILE", help="the configuration; its admin finds the gateway")
    where.add_argument("--pid", metavar="FILE", help="the pid file of the gateway, instead of the configured one")
    where.add_argument("--admin", metavar="URL", help="its admin server: https://HOST:PORT, or unix:/PATH")
    where.add_argument("--token-file", metavar="FILE", help="the file with the token for the admin server")
    where.add_argument("--ca", metavar="FILE", help="the certificates that --admin is verified against")
    where.add_argument("--certificate", metavar="FILE", help="the client certificate for --admin, with its key")
    where.add_argument(
        "--timeout",
        metavar="TIME",
        type=duration,
        default=TIMEOUT,
        help=f"how long to wait for each answer (default: {TIMEOUT:g}s)",
    )
    parser.set_defaults(run=_run, ask=run, parser=parser)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.config is None and arguments.pid is None and arguments.admin is None:
        arguments.parser.error("--config FILE, --pid FILE or --admin URL is required")
    prepare()
    run: Command = arguments.ask
    try:
        return run(AdminClient(_place(arguments), arguments.timeout), arguments)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    except NoAnswer as error:
        if error.status == NOT_RUNNING and _isRunning(arguments):
            print(f"a gateway runs, but its admin server does not answer: {error.reached}; {_REMEDY}", file=sys.stderr)
            return REFUSED
        print(error, file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # The reader, such as head, has enough. Nothing more may be written when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _isRunning(arguments: argparse.Namespace) -> bool:
    """Whether a gateway runs nevertheless: it accepts connections at the socket of C{mailgate reload}."""
    if arguments.admin is not None:
        return False
    try:
        found = arguments.pid or readOne(read(arguments.config), arguments.config, PIDSettings).path
    except ConfigurationError:
        return False
    if found is None:
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(socketPath(os.path.abspath(found)))
        except OSError:
            return False
    return True


def _place(arguments: argparse.Namespace) -> Place:
    if arguments.admin is None:
        place = foundPlace(arguments.config, arguments.pid)
    else:
        try:
            place = placeOf(arguments.admin)
        except ValueError as error:
            arguments.parser.error(f"--admin {error}")
    token = "" if arguments.token_file is None else readToken(arguments.token_file)
    return evolve(place, token=token, authority=arguments.ca, certificate=arguments.certificate)


def foundPlace(config: str | None, pid: str | None) -> Place:
    """
    Return where the admin server of a gateway is.

    @param config: the path of its configuration; L{None} if only the pid file is known.
    @param pid: the path of the pid file; L{None} for the configured one.
    @raise ConfigurationError: the configuration cannot be read, or it has no admin server.
    """
    if config is None:
        assert pid is not None, "one of both finds the gateway"
        return Place(f"{os.path.abspath(pid)}.admin")
    # Other mistakes of the configuration do not matter here.
    written = read(config)
    settings = readOne(written, config, AdminSettings)
    address = settings.adminAt(
        readOne(written, config, PIDSettings) if pid is None else PIDSettings(os.path.abspath(pid))
    )
    if address is None:
        # The usual reason is that the pid file is missing, beside which the socket would be.
        option = "admin" if settings.admin is None else "pid"
        reason = "must be set so that the running gateway can be asked; or use --admin URL or --pid FILE"
        raise ConfigurationError([Problem(config, reason, "mailgate", option)])
    return _placeAt(address)


def _placeAt(address: AdminAddress) -> Place:
    host = _WILDCARDS.get(address.host, address.host)
    return Place(address.path, host, address.port, address.ssl)


def printJSON(value: Any) -> None:
    """
    Print a value for programs, in ASCII: no text of it can control a terminal.

    @param value: the value of JSON.
    """
    print(json.dumps(value, indent=2))
