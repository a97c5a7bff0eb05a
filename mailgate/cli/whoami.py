# -*- test-case-name: mailgate.test.cli.test_whoami mailgate.test.integration.test_whoami -*-
"""
C{mailgate whoami}: logs in by each way that a configuration has for a user, and shows what each backend was sent of the
client, and what it answered.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import DeferredList, TimeoutError
from twisted.internet.error import ConnectError
from twisted.logger import LogPublisher
from twisted.python.failure import Failure

from mailgate.backend.caller import Caller
from mailgate.backend.coroutine import Task
from mailgate.backend.credentials import credentialsFor
from mailgate.backend.errors import BackendError, ofSecret
from mailgate.backend.place import NoBackend, Place
from mailgate.backend.places import Places
from mailgate.backend.retry import RetrySettings
from mailgate.backend.settings import ProxySettings
from mailgate.cli.helptext import helpTexts
from mailgate.cli.transcript import Transcript, recording
from mailgate.config import GatewaySettings, authenticatorKind, load
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal, oneLine
from mailgate.log.levels import NOTICE
from mailgate.login import (
    BackendTLS,
    Client,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    Route,
    TLSOptions,
    fitForWire,
)
from mailgate.net.connectionerrors import inWords
from mailgate.net.naming import NamingReactor
from mailgate.net.networks import plainAddress
from mailgate.registry import PROTOCOLS
from mailgate.sessionids import sessionIds
from mailgate.system.exitstatus import BAD_CONFIGURATION, REFUSED
from mailgate.system.regularfiles import readRegularOrPipe
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["Who", "addWhoami", "whoami"]

_PORT = 49152
"""The client's port, as backends are told it: the first of the dynamic ones (RFC 6335, section 6)."""
_LONGEST_PASSWORD = 64 * 1024
_PATIENCE = 10.0
"""Seconds in which the password has to come, if it comes by a pipe."""


@frozen
class Who:
    """
    Who logs in.

    @ivar credentials: the name and the password.
    @ivar address: the client's address, as backends and the authentication service are told it.
    """

    credentials: Credentials
    address: str


class _Paths:
    """
    The ways of the logins of C{settings}.

    @param say: called with each line for the operator.
    """

    def __init__(self, settings: GatewaySettings, who: Who, reactor: Any, say: Callable[[str], None]) -> None:
        self._who = who
        self._say = say
        self._naming = NamingReactor(reactor)
        self._journal = Journal(NOTICE, LogPublisher())
        self._ids = sessionIds(os.urandom)
        self.upstreams = Upstreams(settings, self._naming)

    async def findServers(self) -> None:
        """Look up the servers of groups that only the DNS knows."""
        looked = [follower.once() for follower in self.upstreams.followers(self._journal)]
        await DeferredList(looked, consumeErrors=True)

    async def tryServer(self, server: ServerSettings) -> bool:
        """Log in by each way of C{server}; returns whether all was well."""
        title = f"server {server.name}: {server.protocol}"
        if not PROTOCOLS[server.protocol].methods(server) - {Method.NONE}:
            self._say(f"{title}\n  takes no logins, and is passed over")
            return True
        request = self._request(server)
        kind = authenticatorKind(server)
        assert kind is not None, "the configuration has been checked"
        authenticator: IAuthenticator = kind.build(server, server[ProxySettings].backend, self._naming, self._journal)
        try:
            judged = await _judge(authenticator, request)
        finally:
            if not kind.isLent:
                authenticator.close()
        if isinstance(judged, str):
            self._say(f"{title}\n  failed: {kind.directive or kind.name} {judged}")
            return False
        alpn = PROTOCOLS[server.protocol].alpn
        retry = server[RetrySettings].within(server[DialogueSettings].timeout if "timeout" in server.given else None)
        contexts = partial(BackendContexts, alpn=alpn)
        places = Places(server[BackendTLSSettings], self.upstreams, contexts, self._naming, retry)
        isWell = True
        for line in _decided(judged):
            self._say(f"{title}, the answer decides: {line}")
        for place in list(places.every(judged, request)):
            # What each backend logs can be told apart by it.
            client = evolve(request.client, session=self._ids.new())
            if isinstance(place, NoBackend):
                self._say(f"{title}, backend {place.group}\n  failed: {place.reason}")
                isWell = False
            else:
                of = "" if place.group is None else f" of upstream {place.group.name}"
                self._say(f"{title}, backend {place.name}{of}, session {client.session}")
                isWell &= await self._tryPlace(server, place, judged, evolve(request, client=client))
        return isWell

    def _request(self, server: ServerSettings) -> LoginRequest:
        name = server[DialogueSettings].serverName
        listen = server.listen[0]
        local, port = (listen.host, listen.port) if listen.isOneAddress else (self._who.address, listen.port)
        client = Client(
            self._who.address, _PORT, local=local, localPort=port, session=self._ids.new(), server=server.name
        )
        return LoginRequest(
            PROTOCOLS[server.protocol].authName,
            self._who.credentials,
            client,
            tag=b"a1",
            envelope=Envelope(name.encode(), True) if server.protocol == "smtp" else Envelope(),
        )

    async def _tryPlace(self, server: ServerSettings, place: Place, route: Route, request: LoginRequest) -> bool:
        login = credentialsFor(server[ProxySettings], route)
        if login is None:
            self._say("  failed: the backend trusts the gateway, and no password was checked")
            return False
        if not fitForWire(route.user, route.password, route.authzid, login.user, login.authzid):
            self._say("  failed: the name or the password has a line end or NUL")
            return False
        transcript = Transcript(login)
        made = recording(
            PROTOCOLS[server.protocol].client, transcript, request.client, hasTags=server.protocol == "imap"
        )
        timeout = place.retry.wholeLogin
        client = made(Caller(server, server[DialogueSettings].serverName), place)
        client.logsIn = login.method != "none"
        deadline = self._naming.callLater(timeout, client.expired)
        trouble = ""
        try:
            await client.open(request.client, place.contexts)
            await client.login(login, request)
        except TimeoutError:
            trouble = f"no answer within {timeout:g} s"
        except BackendError as error:
            trouble = str(ofSecret(error, login.password) if client.isLoggingIn else error)
        except (ConnectError, OSError) as error:
            trouble = inWords(error) or str(error)
        except Exception as error:
            # The reactor's way to say that a name is not known, say.
            trouble = str(error) or type(error).__name__
        finally:
            deadline.cancel() if deadline.active() else None
        for line in transcript:
            self._say(f"  {line}")
        for concern in client.concerns:
            self._say(f"  note: the backend {concern}")
        if trouble:
            client.abandon()
        else:
            client.transport.loseConnection()
        self._say(f"  failed: {oneLine(trouble)}" if trouble else "  logged in")
        return not trouble


def _decided(route: Route) -> Iterator[str]:
    """Yield what C{route} decides in place of directives, by the names of auth_http's headers."""
    options = route.options
    if options is None:
        return
    tls = options.tls or TLSOptions()
    verify = {True: "on", False: "off", None: ""}[tls.verify]
    modes = {BackendTLS.OFF: "off", BackendTLS.IMPLICIT: "on", BackendTLS.STARTTLS: "starttls", None: ""}
    for name, value in (
        ("Auth-Upstream-Key", options.key),
        ("Auth-Proxy-SSL", modes[tls.mode]),
        ("Auth-Proxy-SSL-Verify", verify),
        ("Auth-Proxy-SSL-Name", tls.name),
        ("Auth-Proxy-SSL-Pin", " ".join(tls.pins or ())),
        ("Auth-Proxy-Method", options.method),
        ("Auth-Proxy-Authid", options.authid),
        ("Auth-Proxy-Authzid", options.authzid),
        ("Auth-Proxy-Identity", "" if options.identifies else "off"),
        # A value may be private.
        *(("Auth-Proxy-Forward", key + b"=***") for key, _ in options.forward),
        ("Auth-Proxy-Hold", f"{options.hold:g}, which is skipped here" if options.hold else ""),
        ("Auth-Session-Timeout", "" if options.lifetime is None else f"{options.lifetime:g}"),
        ("Auth-Limit", "none" if options.isUnlimited else ""),
    ):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if text:
            yield f"{name}: {oneLine(text)}"


async def _judge(authenticator: IAuthenticator, request: LoginRequest) -> Route | str:
    """The answer to C{request}, or why there is none."""
    try:
        answer = await authenticator.authenticate(request)
    except Exception as error:
        return f"could not judge the login: {oneLine(str(error) or type(error).__name__)}"
    if isinstance(answer, Route):
        return answer
    if isinstance(answer, Denial):
        reason = f" ({answer.reason})" if answer.reason else ""
        return f"refuses the login: {answer.kind.value}{reason}"
    return "has no answer"


async def whoami(
    settings: GatewaySettings, servers: Sequence[ServerSettings], who: Who, reactor: Any, say: Callable[[str], None]
) -> bool:
    """
    Log in by each way that C{servers} of C{settings} have; returns whether all logins succeeded.

    @param who: who logs in.
    @param reactor: the reactor for connections and timers.
    @param say: called with each line for the operator.
    """
    paths = _Paths(settings, who, reactor, say)
    await paths.findServers()
    isWell = True
    for server in servers:
        isWell &= await paths.tryServer(server)
    return isWell


def addWhoami(commands: Any) -> None:
    """Add the command to those C{commands} of argparse."""
    command = commands.add_parser(
        "whoami",
        help="log in at each backend, and print what it is sent about the client",
        **helpTexts(
            description="Log in as a user at the backend of each server, or at each server of its group, as the gateway"
            " would. Print what each backend is sent about the client (PROXY header, ID, XCLIENT) and each answer, and"
            " never the password. A line that begins with C: was sent, S: is the backend's answer, -- says what"
            " happened. The gateway need not run.",
            statuses={
                0: "all logins succeeded",
                REFUSED: "a login did not succeed, or an argument is wrong",
                BAD_CONFIGURATION: "the configuration is bad; each error is a line on standard error",
            },
            epilog="Example: mailgate whoami --config gateway.ini --user joe --password-file joe.password --server imap"
            " --address 192.0.2.7. See docs/run.rst.",
        ),
    )
    command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration, gateway.ini")
    command.add_argument("--user", metavar="U", required=True, help="the name to log in with")
    command.add_argument(
        "--password-file",
        metavar="F",
        required=True,
        help="a file whose first line is the password; - is standard input",
    )
    command.add_argument("--server", metavar="NAME", help="the server to try; default: all servers")
    command.add_argument(
        "--address",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="the client's address for backends and the authentication service; default: 127.0.0.1",
    )
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    try:
        settings = load(arguments.config)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return BAD_CONFIGURATION
    servers = [server for server in settings.servers if arguments.server in (None, server.name)]
    if not servers:
        print(f"{arguments.config}: there is no [server {arguments.server}]", file=sys.stderr)
        return BAD_CONFIGURATION
    if plainAddress(arguments.address) is None:
        print(f"--address {arguments.address}: is no address", file=sys.stderr)
        return REFUSED
    try:
        password = _password(arguments.password_file)
    except OSError as error:
        print(f"{arguments.password_file}: cannot be read: {error.strerror}", file=sys.stderr)
        return REFUSED
    credentials = Credentials(Method.PLAIN, os.fsencode(arguments.user), password)
    return _inReactor(settings, servers, Who(credentials, arguments.address))


def _password(file: str) -> bytes:
    """The first line of C{file}."""
    isInput = file == "-"
    content = sys.stdin.buffer.readline() if isInput else readRegularOrPipe(file, _LONGEST_PASSWORD, _PATIENCE)
    return content.partition(b"\n")[0].rstrip(b"\r")


def _inReactor(settings: GatewaySettings, servers: Sequence[ServerSettings], who: Who) -> int:
    # Not at the top: what imports this module may want another reactor.
    from twisted.internet import reactor

    anyReactor: Any = reactor
    results: list[bool] = []

    async def run() -> None:
        results.append(await whoami(settings, servers, who, anyReactor, partial(print, flush=True)))
        anyReactor.stop()

    def failed(failure: Failure) -> None:
        failure.printTraceback()
        anyReactor.stop()

    anyReactor.callWhenRunning(Task(run(), failed).start)
    anyReactor.run()
    return 0 if results == [True] else REFUSED
