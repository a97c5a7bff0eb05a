# -*- test-case-name: mailgate.test.config.test_config -*-
"""
gateway.ini: sections and options into settings, and everything that is wrong with them at once.

Which options there are is declared by the settings classes; here is how sections inherit, and what no single option
can see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, evolve, field

from mailgate.auth.passwdfile.authenticator import hashConflicts
from mailgate.config.entrypoints import JUDGED, installed
from mailgate.config.inifile import IniFile
from mailgate.config.outside import HASTY, Authenticators, Outside
from mailgate.config.pitfalls import isAlone, loops, overwritten, pitfalls
from mailgate.config.secretvalues import isSecret, shownValue
from mailgate.config.serverchecks import EXCLUSIVE, WHO, authenticatorKind, faults, judgedBy, remarks, withoutEffect
from mailgate.config.strays import explained, holdsOwnWords, strays
from mailgate.directives import (
    ConfigurationError,
    Directive,
    GatewaySettings,
    Level,
    ListenAddress,
    Problem,
    ServerSettings,
    SocketOptions,
    directives,
    nearest,
    repeatedWords,
)
from mailgate.directives.problems import Lines
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.lean.reactor import EventSettings
from mailgate.log.settings import LogSettings
from mailgate.net.listen import ListenSettings
from mailgate.registry import PROCESS_SETTINGS, PROTOCOLS, SANDBOX_SETTINGS, SERVER_SETTINGS, protocolAt
from mailgate.sandbox.certificate import ensureCertificate, stateFolder
from mailgate.sandbox.settings import SandboxSettings
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.system.processors import WorkerSettings
from mailgate.system.regularfiles import isOpenToAll, readRegularOrPipe, writers
from mailgate.tls.settings import TLSSettings, cacheConflicts, cachesUnshared, keysUnread, usesTLS

__all__ = ["GatewaySettings", "authenticatorKind", "knownDirectives", "load", "parse", "read", "readPID"]

_GROUPS: tuple[type, ...] = (ListenSettings, *SERVER_SETTINGS, *PROCESS_SETTINGS, SANDBOX_SETTINGS)
_SECTIONS = {"mailgate": Level.MAILGATE, "mail": Level.MAIL, "sandbox": Level.SANDBOX}
_LONGEST = 16 * 1024 * 1024
"""Bytes of a configuration; what is longer is something else."""

_PATIENCE = 10.0
"""Seconds in which it has to come, if it comes by a pipe."""

_NGINX = re.compile(r"^\s*(events|mail|http|stream)\s*\{", re.MULTILINE)
"""What nginx.conf has, and no ini file."""


def knownDirectives(level: Level) -> dict[str, Directive]:
    """The options that may stand in sections of C{level}, by name."""
    return {known.name: known for group in _GROUPS for known in directives(group) if level in known.levels}


def load(filename: str, authenticators: Mapping[str, AuthenticatorKind | IAuthenticator] = {}) -> GatewaySettings:
    """
    Read the configuration in C{filename}, certificates and users with it.

    @param authenticators: what judges the logins of servers, by their names, whatever the configuration says. A kind
        may be configured there by its directives.
    @raise ConfigurationError: something is wrong with it.
    """
    return parse(read(filename), filename, authenticators)


def read(filename: str) -> str:
    """
    The text of the configuration in C{filename}.

    @raise ConfigurationError: it cannot be read.
    """
    try:
        content = readRegularOrPipe(filename, _LONGEST, _PATIENCE)
        return re.sub("\r\n?", "\n", content.decode("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError([Problem(filename, f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError([Problem(filename, "is not UTF-8 text", line=line)]) from None


def parse(
    text: str, filename: str = "gateway.ini", authenticators: Mapping[str, AuthenticatorKind | IAuthenticator] = {}
) -> GatewaySettings:
    """
    The settings that C{text} makes; relative paths in it start at C{filename}'s folder. C{authenticators} are those of
    L{load}.

    @raise ConfigurationError: something is wrong with it.
    """
    block = _NGINX.search(text)
    if block is not None:
        message = "looks like an nginx.conf: mailgate import-nginx writes a gateway.ini that does what it says"
        raise ConfigurationError([Problem(filename, message, line=text.count("\n", 0, block.start(1)) + 1)])
    reading = _Reading(filename, authenticators)
    settings = reading.read(text)
    if reading.problems:
        raise ConfigurationError(map(settings.lines.located, reading.problems))
    return settings


def readPID(text: str, filename: str) -> PIDSettings:
    """Where the process of the configuration C{text} is to be found, whatever else may be wrong with it."""
    reading = _Reading(filename, {})
    sections = [reading.section(name, options) for name, options in reading.options(text) if name == "mailgate"]
    values = next((section.values for section in sections if section is not None), {})
    found: PIDSettings = _make(PIDSettings, values)
    return found


@define
class _Section:
    """The options of a section, as values by directive, and as they were written."""

    level: Level
    name: str
    values: dict[str, Any] = field(factory=dict)
    written: dict[str, str] = field(factory=dict)


def _make(group: type, values: Mapping[str, Any]) -> Any:
    return group(**{known.field: values[known.name] for known in directives(group) if known.name in values})


class _Reading:
    """One reading of a file, which gathers C{problems}, and C{warnings} of what makes no difference."""

    def __init__(self, filename: str, authenticators: Authenticators) -> None:
        self._file = filename
        self._authenticators = authenticators
        self._outside = Outside("", {}, ())
        self._folder = os.path.dirname(os.path.abspath(filename))
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._workers = WorkerSettings()
        self._isOpen = isOpenToAll(filename)
        self._strayed: dict[tuple[str, str], list[str]] = {}
        self._unread: dict[str, set[str]] = {}
        self._lines = Lines()

    def read(self, text: str) -> GatewaySettings:
        own = {name for level in Level for name in knownDirectives(level)}
        self._outside = Outside(text, self._authenticators, own)
        sections = [self.section(name, options) for name, options in self.options(text)]
        known = [section for section in sections if section is not None]
        mail = next((section for section in known if section.level is Level.MAIL), _Section(Level.MAIL, "mail"))
        process = next((section.values for section in known if section.level is Level.MAILGATE), {})
        self._workers = _make(WorkerSettings, process)
        demo = next((section.values for section in known if section.level is Level.SANDBOX), None)
        sandbox = None if demo is None else _make(SANDBOX_SETTINGS, demo)
        servers, names = [], list[str]()
        for section in known:
            if section.level is Level.SERVER:
                names.append(section.name.removeprefix("server ").strip())
                server = self._server(section, mail, sandbox)
                if server is not None:
                    servers.append(server)
        if not any(section.level is Level.SERVER for section in known):
            self._problem("mail", "", "there is no [server NAME] section")
        self.problems.extend(self._outside.strangers(names, self._file))
        if self._workers.count > 1:
            for section in known:
                for option in self._outside.hasty.intersection(section.written):
                    self._problem(section.name, option, HASTY)
        self._checkAddresses(servers)
        self.problems.extend(cacheConflicts(servers, mail.values.get("ssl_session_cache")))
        self.problems.extend(hashConflicts(servers))
        groups = {group: _make(group, process) for group in PROCESS_SETTINGS}
        settings = GatewaySettings(tuple(servers), groups, sandbox, self._file, lines=self._lines)
        log, isLean = settings[LogSettings], settings[EventSettings].isLean
        self.problems += self._workers.problems(self._file, sandbox is not None, isLean)
        self.problems += cachesUnshared(servers, self._workers.count)
        self.problems.extend(overwritten(self._file, log, settings[PIDSettings], servers))
        if not isLean:
            self.problems.extend(keysUnread(servers))
        reason = writers(self._file)
        if reason is not None:
            self.warnings.insert(0, Problem(self._file, reason))
        warnings = [*log.warnings(self._file), *settings[ProcessSettings].warnings(self._file)]
        warnings += [warning for server in servers for warning in (*pitfalls(server), *remarks(server, "warnings"))]
        # What strays into a value is the reason for whatever else is wrong with it.
        warnings = [warning for warning in warnings if (warning.section, warning.option) not in self._strayed]
        warnings = [*self.warnings, *warnings, *withoutEffect(servers)]
        self.problems = list(map(self._withReason, self.problems))
        return evolve(settings, warnings=tuple(dict.fromkeys(map(self._lines.located, warnings))))

    def _problem(self, section: str, option: str, message: str, value: str | None = None) -> None:
        self.problems.append(self._lines.located(Problem(self._file, message, section, option, value)))

    def _withReason(self, problem: Problem) -> Problem:
        strayed = self._strayed.get((problem.section, problem.option), [])
        return evolve(problem, message="; ".join([problem.message, *strayed])) if strayed else problem

    def options(self, text: str) -> Iterator[tuple[str, Mapping[str, str]]]:
        """The sections of C{text}, and what is written in them."""
        found = IniFile(text, self._file, {name for level in Level for name in self._known(level)})
        self._lines = found.lines
        self._unread = {section.name: section.unread for section in found.sections.values()}
        self.problems.extend(found.problems)
        for section in found.sections.values():
            yield section.name, {name: option.value for name, option in section.options.items()}

    def section(self, name: str, options: Mapping[str, str]) -> _Section | None:
        """Its C{options} read; L{None} for one that is not known."""
        level = _SECTIONS.get(name)
        if level is None and name.startswith("server ") and name[7:].strip():
            level = Level.SERVER
        if level is None:
            message = "is no known section"
            if name.strip() == "server":
                message = "needs a name, such as [server imap]"
            self._problem(name, "", message + nearest(name, [*_SECTIONS, "server NAME"]))
            return None
        # An option in a line that could not be read has been told of, and is not missing.
        section = _Section(level, name, written=dict.fromkeys(self._unread.get(name, ()), ""))
        known = self._known(level)
        for option, text in options.items():
            self._option(section, known, option, text.strip())
        if section.values.get("ssl") and section.values.get("starttls", "off") != "off":
            self._problem(name, "starttls", "conflicts with ssl = on, by which TLS is spoken from the first byte")
        return section

    def _option(self, section: _Section, known: Mapping[str, Directive], option: str, text: str) -> None:
        declared = known.get(option)
        if declared is None:
            section.written.update(dict.fromkeys({option}.intersection(self._outside.broken), ""))
            message = self._unknown(section.level, option)
            if message:
                self._problem(section.name, option, message)
            return
        section.written[option] = shownValue(declared, text)
        place = (section.name, option, section.written[option])
        strayed = [] if holdsOwnWords(declared) else list(strays(text))
        try:
            section.values[option] = declared.parse(text, self._folder)
        except ValueError as error:
            self._problem(section.name, option, explained(declared, text, self._folder, str(error)), place[2])
            return
        if self._isOpen and section.level is not Level.SANDBOX and isSecret(declared, text):
            reason = f"may be a secret, and everybody on this host may read it: chmod o-r {self._file}"
            self.warnings.append(Problem(self._file, reason, *place))
        if strayed:
            self._strayed[section.name, option] = strayed
        remarks = [*strayed, *(f'duplicate value "{word}"' for word in repeatedWords(declared.parse, text))]
        self.warnings.extend(Problem(self._file, remark, *place) for remark in remarks)

    def _known(self, level: Level) -> dict[str, Directive]:
        """The options that may stand in sections of C{level}, those from outside among them."""
        return {**knownDirectives(level), **(self._outside.directives if level in JUDGED else {})}

    def _unknown(self, level: Level, option: str) -> str:
        """What is wrong with C{option}, which a section of C{level} does not have; empty where that is told already."""
        elsewhere = [other.value for other in Level if option in self._known(other)]
        if elsewhere:
            return f"does not belong here, but in [{elsewhere[0]}{' NAME' if elsewhere[0] == 'server' else ''}]"
        names = list(self._known(level))
        if level in JUDGED:
            if self._outside.broken:
                # It may be one that the broken kind would have declared.
                return self._outside.broken.get(option, "")
            names += installed()
        return "is no known option" + nearest(option, names)

    def _server(self, section: _Section, mail: _Section, sandbox: SandboxSettings | None) -> ServerSettings | None:
        inherited = {name: value for name, value in mail.values.items() if not self._hidden(name, section)}
        values = {**inherited, **section.values}
        groups = {group: _make(group, values) for group in (*SERVER_SETTINGS, *self._outside.groups)}
        # What a server takes of the machine depends on how many processes take as much.
        groups[WorkerSettings] = self._workers
        listening: ListenSettings = _make(ListenSettings, values)
        addresses = tuple(evolve(address, ssl=address.ssl or listening.ssl) for address in listening.addresses)
        protocol = self._protocol(section, listening)
        if not addresses and "listen" not in section.written:
            self._problem(section.name, "listen", "is missing")
        if protocol is None or not addresses:
            return None
        server = ServerSettings(
            section.name.removeprefix("server ").strip(),
            protocol,
            addresses,
            groups,
            frozenset(values),
            self._file,
            frozenset(inherited).difference(section.written),
            self._lines,
            ports=PROTOCOLS[protocol].backendPorts,
        )
        kind = self._outside.kindFor(server.name, server.given)
        server = server if kind is None else judgedBy(server, kind)
        if sandbox is not None and usesTLS(server) and not server[TLSSettings].certificates:
            server = self._withSandboxCertificate(server)
        # What could not be read has been told of; what that leads to is no news.
        spoilt = {name for name in {*section.written, *mail.written} if name not in values}
        exclusive = (*EXCLUSIVE, *self._outside.exclusive)
        missingKind = spoilt.intersection(("proxy_pass", *exclusive))
        told = []
        for problem in (*faults(server, exclusive), *(loops(server) if isAlone(server) else ())):
            if problem.option not in spoilt and not (missingKind and problem.option == WHO):
                told.append(problem)
        # What is wrong in [mail] is so for each server that has it from there.
        self.problems.extend(problem for problem in told if problem not in self.problems)
        return server

    def _hidden(self, option: str, section: _Section) -> bool:
        exclusive = (*EXCLUSIVE, *self._outside.exclusive)
        return option in exclusive and any(other in section.written for other in exclusive)

    def _protocol(self, section: _Section, listening: ListenSettings) -> str | None:
        """The protocol that is given, or the one of the first well-known port."""
        if listening.protocol is not None:
            if listening.protocol in PROTOCOLS:
                return listening.protocol
            known = f"they are {', '.join(PROTOCOLS)}{nearest(listening.protocol, list(PROTOCOLS))}"
            self._problem(section.name, "protocol", f"is no known protocol, {known}", listening.protocol)
            return None
        found = protocolAt(listening.addresses)
        if found is None and listening.addresses and "protocol" not in section.written:
            self._problem(section.name, "protocol", f"is missing, and no port tells it: {', '.join(PROTOCOLS)}")
        return found

    def _withSandboxCertificate(self, server: ServerSettings) -> ServerSettings:
        try:
            name = server[DialogueSettings].serverName
            certificate, key = ensureCertificate(stateFolder(os.environ), [name])
        except (OSError, UnicodeError) as error:
            # UnicodeError: server_name is no host name.
            self.problems.append(server.problem("ssl_certificate", f"the sandbox's cannot be made: {error}"))
            return server
        tls = evolve(server[TLSSettings], certificates=(certificate,), keys=(key,))
        return evolve(server, groups={**server.groups, TLSSettings: tls})

    def _checkAddresses(self, servers: list[ServerSettings]) -> None:
        taken: dict[tuple[str, int], ListenAddress] = {}
        owners: dict[tuple[str, int], str] = {}
        for server in servers:
            for address in server.listen:
                place = address.host, address.port
                owner = owners.setdefault(place, server.name)
                if taken.setdefault(place, address) is not address:
                    reason = f'duplicate "{address}" address and port pair, which [server {owner}] has already'
                    self.problems.append(server.problem("listen", reason))
        for server in servers:
            for address in server.listen:
                wildcard = taken.get(address.wildcard or ("", 0), address)
                if address.socket not in (wildcard.socket, SocketOptions()):
                    reason = f'"{address}" shares the socket of "{wildcard}", and cannot have other options'
                    self.problems.append(server.problem("listen", reason))
