# -*- test-case-name: mailgate.test.cli.test_main -*-
"""
The command C{mailgate}: everything that operators do besides starting the gateway.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mailgate._version import __version__
from mailgate.backend.settings import ProxySettings
from mailgate.cli.blocks import addBlocks
from mailgate.cli.explain import addExplain
from mailgate.cli.helptext import helpTexts
from mailgate.cli.kick import addKick
from mailgate.cli.moves import addMoves
from mailgate.cli.remote import addCommands
from mailgate.cli.sessions import addSessions
from mailgate.cli.stats import addStats
from mailgate.cli.status import addStatus
from mailgate.cli.top.command import addTop
from mailgate.cli.whoami import addWhoami
from mailgate.config import GatewaySettings, authenticatorKind, load
from mailgate.config.destinations import cleartext, nameless
from mailgate.directives import ConfigurationError, Problem, SectionSettings, ServerSettings
from mailgate.login import BackendGroup
from mailgate.process.rights import shedPrivileges, unreadableLater
from mailgate.process.startchecks import checkStart
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import BAD_CONFIGURATION, NOT_INSTALLED
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.settings import TLSSettings, usesTLS
from mailgate.upstream.settings import UpstreamSettings

__all__ = ["describe", "main"]


def _server(server: ServerSettings) -> Iterator[str]:
    kind = authenticatorKind(server)
    places = ", ".join(f"{address}{' ssl' if address.ssl else ''}" for address in server.listen)
    methods = ", ".join(sorted(method.value for method in PROTOCOLS[server.protocol].methods(server)))
    yield f"server {server.name}: {server.protocol} on {places}"
    yield f"  logins: {methods}, checked by {kind.directive if kind else 'no authenticator'}"
    tls = server[TLSSettings]
    if usesTLS(server):
        certificates = f"{len(tls.certificates)} certificate(s)" if tls.certificates else "the demo's certificate"
        yield f"  TLS: {' '.join(tls.protocols)}, starttls {tls.starttls}, {certificates}"
    else:
        yield "  TLS: none"
    backend, mode = server[ProxySettings].backend, server[BackendTLSSettings].mode
    if isinstance(backend, BackendGroup) or mode != "off":
        yield f"  backends: {backend or 'named for each account'}, proxy_ssl {mode}"


def _group(section: SectionSettings) -> Iterator[str]:
    upstream = section[UpstreamSettings]
    yield f"upstream {section.name}: {upstream.method}"
    mode = section[BackendTLSSettings].mode if "proxy_ssl" in section.given else "as the server has it"
    yield f"  proxy_ssl: {mode}"
    for line in upstream.servers:
        yield f"  server: {line.written}"


def describe(settings: GatewaySettings) -> Iterator[str]:
    """
    Yield the lines that C{mailgate check} prints.

    @param settings: a valid configuration.
    """
    for server in settings.servers:
        yield from _server(server)
    for section in settings.named:
        yield from _group(section) if UpstreamSettings in section.groups else ()
    for found in settings.groups.values():
        summary = getattr(found, "summary", None)
        yield from () if summary is None else summary()
    yield f"{settings.file}: good"


def _reload(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Yield a warning of the files that a reload could not read. With workers the master reads them as root; without, the
    gateway reads them as the user that this process has become.
    """
    user = settings[ProcessSettings].user
    unreadable = unreadableLater(settings) if user is not None and settings[WorkerSettings].count == 1 else []
    if user is not None and unreadable:
        reason = f"cannot read {', '.join(unreadable)}: reloads will be refused"
        yield settings.lines.located(Problem(settings.file, reason, "mailgate", "user", user.name))


def _check(arguments: argparse.Namespace) -> int:
    try:
        settings = load(arguments.config)
        warnings = [*settings.warnings, *cleartext(settings), *nameless(settings), *checkStart(settings)]
        # As the gateway does: only that user's process can find out what that user may read.
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
        # Names of servers may be any text; a terminal may be limited to ASCII.
        sys.stdout.reconfigure(errors="backslashreplace")
    print("\n".join(describe(settings)))
    return 0


def _importNginx(arguments: argparse.Namespace) -> int:
    try:
        # crossplane is an extra: only those who move from nginx install it.
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
    print("Next: save the output as gateway.ini and run mailgate check --config gateway.ini", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mailgate",
        description="Mail gateway for IMAP4, POP3, SMTP and ManageSieve. This command checks the configuration, imports"
        " nginx's, and shows and controls a running gateway.",
        epilog="Start the gateway: twistd mailgate --config FILE",
    )
    parser.add_argument("--version", action="version", version=f"mailgate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="check the configuration and exit; open no port",
        **helpTexts(
            description="Check the configuration and exit. Read FILE with its certificates, keys and account files, and"
            " print the servers that it defines. Check that the log files and the pid file can be written and that"
            " this host has the addresses of the listeners. Open no port. Run the command as the user that starts the"
            " gateway.",
            statuses={
                0: "the configuration is good; warnings are on standard error",
                BAD_CONFIGURATION: "the configuration is bad; each error is a line on standard error",
            },
        ),
    )
    check.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, gateway.ini")
    check.set_defaults(run=_check)
    _addImportNginx(commands)
    addWhoami(commands)
    addCommands(commands)
    addSessions(commands)
    addKick(commands)
    addBlocks(commands)
    addMoves(commands)
    addExplain(commands)
    addStatus(commands)
    addStats(commands)
    addTop(commands)
    return parser


def _addImportNginx(commands: Any) -> None:
    command = commands.add_parser(
        "import-nginx",
        help="convert the mail block of an nginx.conf to a gateway.ini",
        **helpTexts(
            description="Convert the mail block of an nginx.conf to a gateway.ini. Read FILE and the files that it"
            " includes, and write the gateway.ini to standard output. Report each directive that cannot be converted"
            " on standard error, with file, line and reason. As in nginx, relative paths start at the folder of FILE,"
            " and those of log files at PREFIX.",
            statuses={
                0: "a gateway.ini was written",
                NOT_INSTALLED: "crossplane is not installed: pip install 'mailgate[nginx]'",
                BAD_CONFIGURATION: "nginx would reject FILE, or FILE has no mail block",
            },
            epilog="Next: mailgate check --config gateway.ini. See docs/nginx.rst.",
        ),
    )
    command.add_argument("file", metavar="FILE", help="the configuration of nginx, such as /etc/nginx/nginx.conf")
    command.add_argument(
        "-p",
        "--prefix",
        metavar="PREFIX",
        help="nginx's prefix, as nginx -V prints it. Default: if FILE is in a folder named conf, the folder above;"
        " otherwise Debian's prefix, /usr/share/nginx, and Debian's log, /var/log/nginx/error.log, if FILE names none",
    )
    command.set_defaults(run=_importNginx)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    @param argv: the arguments, without the program's name; L{None}: those of this process.
    @return: the exit status.
    """
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status
