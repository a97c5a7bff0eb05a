# -*- test-case-name: mailgate.test.cli.test_main -*-
"""
The command C{mailgate}: what an operator does besides running the gateway.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mailgate._version import __version__
from mailgate.cli.remote import addCommands
from mailgate.cli.whoami import addWhoami
from mailgate.config import GatewaySettings, authenticatorKind, load
from mailgate.config.destinations import cleartext
from mailgate.directives import ConfigurationError, Problem, ServerSettings
from mailgate.process.rights import shedPrivileges, unreadableLater
from mailgate.process.startchecks import checkStart
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import BAD_CONFIGURATION, NOT_INSTALLED
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["describe", "main"]


def _server(server: ServerSettings) -> Iterator[str]:
    kind = authenticatorKind(server)
    places = ", ".join(f"{address}{' ssl' if address.ssl else ''}" for address in server.listen)
    methods = ", ".join(sorted(method.value for method in PROTOCOLS[server.protocol].methods(server)))
    yield f"server {server.name}: {server.protocol} on {places}"
    yield f"  logins: {methods}, judged by {kind.directive if kind else 'nobody'}"
    tls = server[TLSSettings]
    if usesTLS(server):
        certificates = f"{len(tls.certificates)} certificate(s)" if tls.certificates else "the demo's certificate"
        yield f"  TLS: {' '.join(tls.protocols)}, starttls {tls.starttls}, {certificates}"
    else:
        yield "  TLS: none"


def describe(settings: GatewaySettings) -> Iterator[str]:
    """What was found in a configuration, line by line."""
    for server in settings.servers:
        yield from _server(server)
    for found in settings.groups.values():
        summary = getattr(found, "summary", None)
        yield from () if summary is None else summary()
    yield f"{settings.file}: good"


def _reload(settings: GatewaySettings) -> Iterator[Problem]:
    """What the user that we have become may not read; with workers it is root who reads."""
    user = settings[ProcessSettings].user
    unreadable = unreadableLater(settings) if user is not None and settings[WorkerSettings].count == 1 else []
    if user is not None and unreadable:
        reason = f"a reload will be refused, as {user.name} may not read {', '.join(unreadable)}"
        yield settings.lines.located(Problem(settings.file, reason, "mailgate", "user", user.name))


def _check(arguments: argparse.Namespace) -> int:
    try:
        settings = load(arguments.config)
        warnings = [*settings.warnings, *cleartext(settings), *checkStart(settings)]
        # As the gateway does: what that user may is seen from there alone.
        wasRoot = os.geteuid() == 0
        warnings += shedPrivileges(settings)
        if wasRoot:
            warnings += _reload(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of servers are any text, and a terminal may know ASCII alone.
        sys.stdout.reconfigure(errors="backslashreplace")
    print("\n".join(describe(settings)))
    return 0


def _importNginx(arguments: argparse.Namespace) -> int:
    try:
        # An extra brings crossplane, and whoever comes from elsewhere does not need it.
        from mailgate.nginx.conf import Refused
        from mailgate.nginx.importer import importNginx
    except ModuleNotFoundError as error:
        if error.name != "crossplane":
            raise
        print("mailgate import-nginx needs crossplane: pip install 'mailgate[nginx]'", file=sys.stderr)
        return NOT_INSTALLED
    try:
        imported = importNginx(arguments.file, arguments.prefix)
    except Refused as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    print(imported.text, end="")
    for remark in imported.remarks:
        print(remark, file=sys.stderr)
    print("To go on: mailgate check --config FILE, FILE being what was written.", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailgate", description="A gateway for IMAP4, POP3 and SMTP. It is run by: twistd mailgate --config FILE"
    )
    parser.add_argument("--version", action="version", version=f"mailgate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="try a configuration out, certificates and users included, without opening a port",
        description="Reads a configuration, certificates and users included, and says what it found. Then looks whether"
        " logs and pid file could be written, and addresses be listened on. Opens no port. Run it as the user that"
        f" starts the gateway. Exit status 0, or {BAD_CONFIGURATION} with a line on standard error for everything that"
        " is wrong.",
    )
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration")
    check.set_defaults(run=_check)
    _addImportNginx(commands)
    addWhoami(commands)
    addCommands(commands)
    return parser


def _addImportNginx(commands: Any) -> None:
    command = commands.add_parser(
        "import-nginx",
        help="write a gateway.ini that does what nginx.conf says of mail",
        description="Reads nginx.conf with all that it includes, and writes to standard output a gateway.ini that does"
        " what it says of mail. Standard error tells of each directive that could not be carried over, with file, line"
        " and reason. Files are named from nginx.conf's folder, logs from PREFIX, as in nginx."
        f" Exit status 0 where a gateway.ini was written; {BAD_CONFIGURATION} where none could be, because nginx would"
        f" take no such file, or it is about no mail; {NOT_INSTALLED} where crossplane is not installed.",
        epilog="Then: mailgate check --config gateway.ini. docs/nginx.rst tells the rest.",
    )
    command.add_argument("file", metavar="FILE", help="the configuration of nginx, often /etc/nginx/nginx.conf")
    command.add_argument(
        "-p",
        "--prefix",
        metavar="PREFIX",
        help="nginx's prefix, of which nginx -V tells. Default: the folder above, where FILE lies in a folder conf; or"
        " else that of Debian's nginx, /usr/share/nginx, and /var/log/nginx/error.log where FILE names no log",
    )
    command.set_defaults(run=_importNginx)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status
