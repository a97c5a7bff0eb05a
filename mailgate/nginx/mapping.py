# -*- test-case-name: mailgate.test.nginx.test_mapping -*-
"""
Maps the mail block of an nginx.conf to sections of gateway.ini that behave the same, and reports what cannot be mapped.

A directive that mailgate has under nginx's name needs nothing here. The tables hold the exceptions: other defaults, and
directives that mailgate does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from attrs import frozen

from mailgate.directives import ListenAddress
from mailgate.frontend.capabilities import leftOut
from mailgate.nginx.conf import Refused, Remark, Statement
from mailgate.nginx.sections import REPLACED, Entry, Section, known, listening, whyLeftOut
from mailgate.nginx.values import OF_THE_HOST, PATHS, Paths, fitsIni, written
from mailgate.registry import PROTOCOLS, protocolAt

__all__ = ["NGINX_DEFAULTS", "Default", "Mapping"]


@frozen
class Default:
    """
    A directive whose default in nginx differs from mailgate's.

    @ivar name: the name of the directive.
    @ivar value: the default of nginx. The items of a list are separated by line ends.
    @ivar why: the comment in the gateway.ini: what nginx does, and what mailgate's default does.
    """

    name: str
    value: str
    why: str


NGINX_DEFAULTS = (
    Default(
        "max_commands",
        "999999999999",
        "nginx has no limit, and no client reaches this one. mailgate's default is 1000, as in freenginx.",
    ),
    Default(
        "xclient",
        "on",
        "nginx sends XCLIENT even if the backend does not offer it. With auto, mailgate's default, it is sent only if"
        " offered; with smtp_auth = none a backend that does not offer it is not used, so that no client sends as the"
        " gateway.",
    ),
    Default(
        "proxy_identity",
        "off",
        "nginx does not send the client's address to IMAP and POP3 backends. With auto, mailgate's default, Dovecot can"
        " slow down the client that guesses passwords, and not all clients.",
    ),
    Default(
        "proxy_next_upstream",
        "off",
        "nginx tries one backend, once. mailgate's default goes on to the next server, and tries a server that is alone"
        " again after a second.",
    ),
    Default(
        "proxy_connect_timeout",
        "1h",
        "nginx has no limit for the connect alone: timeout limits the whole login. This value never exceeds that."
        " mailgate's default is 10s, so that time is left for another attempt.",
    ),
    Default(
        "proxy_login_timeout",
        "60s",
        "The timeout of nginx, which also limits the login at a backend. mailgate's default is 30s.",
    ),
    Default(
        "auth_http_keepalive",
        "off",
        "nginx uses HTTP/1.0 with a new connection for each request, where surplus bytes of a response do no harm. With"
        " auto, mailgate's default, connections that the service keeps open are used again.",
    ),
    Default(
        "auth_http_max_connections",
        "0",
        "nginx does not limit requests at the same time. mailgate's default is 64; further logins wait.",
    ),
    Default(
        "auth_http_missing_status",
        "accept",
        "nginx accepts a login if the service's response has no Auth-Status. mailgate's default, refuse, is safer.",
    ),
    Default(
        "sasl_authzid",
        "ignore",
        "If a client logs in to the mailbox of another user, nginx opens the client's own mailbox. mailgate's default,"
        " refuse, refuses the login.",
    ),
    Default(
        "unlisted_auth",
        "on",
        "nginx accepts PLAIN and LOGIN even if …_auth does not list them. mailgate's default, off, accepts only what"
        " is listed.",
    ),
    Default(
        "imap_capabilities",
        "IMAP4\nIMAP4rev1\nUIDPLUS",
        "nginx announces a fixed list, without SASL-IR, LITERAL+ and ID. With backend, mailgate's default, clients get"
        " what the backend offers, where that is known.",
    ),
    Default(
        "pop3_capabilities",
        "TOP\nUSER\nUIDL",
        "nginx announces a fixed list, without PIPELINING, RESP-CODES and AUTH-RESP-CODE. With backend, mailgate's"
        " default, clients get what the backend offers, where that is known.",
    ),
    Default(
        "smtp_capabilities",
        "none",
        "nginx announces nothing. Mail programs then convert 8-bit mail, and bounce mail that needs SMTPUTF8. With"
        " backend, mailgate's default, clients get what the backend offers, where that is known.",
    ),
)
"""Options that the import adds to [mail] unless nginx.conf sets them."""


_HEADER_ALONE = (
    "after the PROXY header of proxy_protocol mailgate sends no XCLIENT, because backends then check the client's"
    " address, and refuse XCLIENT; use proxy_smtp_auth to give them the user name"
)
"""Why C{xclient on} is not carried over together with C{proxy_protocol}."""

_ACCUMULATED = ("imap_auth", "pop3_auth", "smtp_auth", "ssl_protocols")
"""Directives that nginx may repeat. The words of all of them make one line."""

_FILES = {*PATHS, "ssl_conf_command"}
"""Directives whose value may be a key in place of the path of its file."""

_NOT_NEEDED = {
    "accept_mutex": "mailgate's workers share new connections in another way",
    "accept_mutex_delay": "mailgate's workers share new connections in another way",
    "daemon": "twistd runs in the background unless started with -n",
    "load_module": "mailgate has no loadable modules",
    "lock_file": "mailgate's workers need no lock file",
    "master_process": "worker_processes decides whether there is a master process",
    "multi_accept": "it tunes nginx's event loop",
    "pcre_jit": "mailgate's configuration has no regular expressions",
    "thread_pool": "mailgate does not read files for clients",
    "timer_resolution": "it tunes nginx's event loop",
    "worker_aio_requests": "mailgate does not read files for clients",
}
"""Directives outside of mail that make no difference for mailgate's clients."""

_ELSEWHERE = {
    "debug_points": "it is for developers of nginx",
    "env": "mailgate uses the environment that it is started with",
    "http": "mailgate is a mail gateway; leave it to nginx",
    "pid": "nginx writes that file; set another one in [mailgate]",
    "ssl_engine": "mailgate does not use OpenSSL engines",
    "stream": "mailgate is a mail gateway; leave it to nginx",
    "worker_cpu_affinity": "set CPUAffinity= in the systemd unit",
    "worker_priority": "set Nice= in the systemd unit",
    "worker_rlimit_core": "set LimitCORE= in the systemd unit",
    "working_directory": "start twistd with --rundir",
}
"""Directives outside of mail that another program must handle."""


class Mapping:
    """
    The sections of a gateway.ini, made from an nginx.conf.

    @param filename: the path of the nginx.conf, for remarks about the whole file.
    @param statements: the statements of its main context.
    @param paths: the folders where relative paths start.
    @ivar remarks: what is not carried over, or not exactly.
    @ivar sections: the sections.
    @raise Refused: there is no mail block, or it has no server, or two servers have the same address.
    """

    def __init__(self, filename: str, statements: Sequence[Statement], paths: Paths) -> None:
        self._paths = paths
        self.remarks: list[Remark] = []
        self._taken: dict[tuple[str, int], tuple[Section, ListenAddress]] = {}
        self._duplicates: list[Remark] = []
        blocks = {statement.name: statement for statement in statements if not statement.complaint}
        mail = blocks.get("mail")
        if mail is None:
            raise Refused([Remark(filename, 0, "has no mail block")])
        if "events" not in blocks:
            message = 'has no "events" section, which nginx requires; check that this is the main nginx.conf'
            self.remarks.append(Remark(filename, 0, message))
        self.process = Section("mailgate", "mailgate")
        self.mail = Section("mail", "mail", mail)
        self.servers: list[Section] = []
        self._readProcess([statement for statement in statements if statement is not mail])
        self._readMail(mail)
        if not self.servers:
            raise Refused([Remark(mail.file, mail.line, "the mail block has no server")])
        if self._duplicates:
            raise Refused(self._duplicates)
        self._leaveOut()

    @property
    def sections(self) -> list[Section]:
        """All sections, in the order of the file."""
        return [self.process, self.mail, *self.servers]

    def refuse(self, entry: Entry, reason: str) -> None:
        """
        Make an option a comment.

        @param entry: the option.
        @param reason: why mailgate cannot use it.
        """
        entry.refusal = reason
        if entry.origin is not None:
            reason = _discreet(entry.origin, reason)
            self._tell(entry.origin, f"not carried over: {reason}")
        self._leaveOut()

    def refuseServer(self, section: Section, reason: str) -> None:
        """
        Make a whole server a comment.

        @param section: the server.
        @param reason: why it is left out.
        """
        section.refusal = reason
        if section.origin is not None:
            self._tell(section.origin, f"not carried over: {reason}")

    def keep(self, entry: Entry, reason: str) -> None:
        """
        Report an option that is carried over although this host cannot use it.

        @param entry: the option.
        @param reason: why this host cannot use it.
        """
        if entry.origin is not None:
            self._tell(entry.origin, f"carried over, but {_discreet(entry.origin, reason)}")

    def _tell(self, statement: Statement, message: str) -> None:
        # The name of an unknown directive may be a part of a secret.
        name = "" if statement.complaint else statement.name
        remark = Remark(statement.file, statement.line, message, name)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def _readProcess(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            for single in statement.block if statement.name == "events" else (statement,):
                self._outside(single)
        if self.process.entry("error_log") is None:
            default = Entry("error_log", [f"{self._paths.errorLog} error"], comment="The default of nginx.")
            self.process.entries.insert(0, default)
        if self.process.entry("worker_connections") is None:
            why = "The default of nginx is 512, which includes the connections to backends."
            self.process.entries.append(Entry("worker_connections", ["256"], comment=why))

    def _readMail(self, mail: Statement) -> None:
        servers = [statement for statement in mail.block if statement.name == "server" and not statement.complaint]
        for statement in mail.block:
            if statement not in servers:
                self._carry(self.mail, statement)
        self.mail.entries.extend(_defaults(self.mail))
        for statement in servers:
            self.servers.append(self._server(statement))
        for section in self.servers:
            self._spareXCLIENT(section)
            timeout = section.entry("timeout")
            if timeout is not None and self.mail.entry("proxy_login_timeout") is not None:
                # The value of [mail] would go before the server's timeout.
                section.entries.append(Entry("proxy_login_timeout", list(timeout.items)))

    def _spareXCLIENT(self, section: Section) -> None:
        """Set C{xclient = auto} where nginx sends both a PROXY header and XCLIENT: mailgate refuses both together."""
        protocol, own = section.entry("protocol"), section.entry("xclient")
        xclient = own or self.mail.entry("xclient")
        header = section.entry("proxy_protocol") or self.mail.entry("proxy_protocol")
        if protocol is None or protocol.items[0] != "smtp" or xclient is None or xclient.items[0].lower() != "on":
            return
        if header is None or header.items[0].lower() == "off":
            return
        if own is None:
            own = Entry("xclient", [])
            section.entries.append(own)
        own.items, own.comment = ["auto"], _HEADER_ALONE[0].upper() + _HEADER_ALONE[1:]
        if xclient.origin is not None:
            self._tell(xclient.origin, f"carried over as auto: {_HEADER_ALONE}")

    def _outside(self, statement: Statement) -> None:
        """A directive of nginx's main or events context."""
        name = statement.name
        if statement.complaint:
            self._tell(statement, f"not carried over: {statement.complaint}")
        elif name == "use" and statement.args != ("epoll",):
            self._tell(statement, "not needed: mailgate uses epoll if the system has it")
        elif name in known("mailgate") and name not in _ELSEWHERE:
            self._carry(self.process, statement)
        elif name in _NOT_NEEDED:
            self._tell(statement, f"not needed: {_NOT_NEEDED[name]}")
        else:
            self._tell(statement, f"not carried over: {_ELSEWHERE.get(name, 'mailgate has no such directive')}")

    def _carry(self, section: Section, statement: Statement) -> None:
        """Add the directive C{statement} to C{section}, or report why not."""
        if statement.name in REPLACED:
            # nginx uses only the last one.
            section.forget(statement.name)
        entry = section.entry(statement.name)
        try:
            items = self._items(section, statement, entry)
        except ValueError as error:
            refused = Entry(statement.name, [" ".join(statement.args)], statement)
            section.entries.append(refused)
            self.refuse(refused, str(error))
            return
        if statement.name == "auth_http_header" and statement.args[1] != statement.args[1].strip(" "):
            self._tell(statement, "carried over without the blanks around its value")
        if statement.name.endswith("_capabilities"):
            self._checkCapabilities(statement, items)
        if statement.name == "listen":
            self._take(section, statement, items)
        if entry is None:
            section.entries.append(Entry(statement.name, items, statement))
        elif statement.name in _ACCUMULATED:
            entry.items = [" ".join([*entry.items, *items])]
        else:
            entry.items.extend(items)

    def _checkCapabilities(self, statement: Statement, items: Sequence[str]) -> None:
        """Report capabilities that mailgate does not announce, and parameters that nginx reads as capabilities."""
        for capability, reason in leftOut(PROTOCOLS[statement.name.partition("_")[0]], tuple(items)):
            self._tell(statement, f'carried over, but "{capability}" {reason}')
        for before, item in pairwise(items):
            if item.isdigit():
                whole = f"{before} {item}"
                self._tell(
                    statement,
                    f'carried over as two capabilities, because "{whole}" has no quotes in nginx.conf: write {whole}'
                    " on one line",
                )

    def _items(self, section: Section, statement: Statement, entry: Entry | None) -> list[str]:
        if statement.complaint:
            raise ValueError(statement.complaint)
        declared = known(section.level).get(statement.name)
        if declared is None:
            raise ValueError(f"mailgate has no such directive in [{section.level}]")
        items = written(statement.name, statement.args, self._paths)
        before = 0 if entry is None else len(entry.items)
        for number, item in enumerate(items, before):
            fitsIni(item, number == 0)
            if statement.name not in OF_THE_HOST:
                declared.parse(item, self._paths.configuration)
        return items

    def _take(self, section: Section, statement: Statement, items: Sequence[str]) -> None:
        """Remember the addresses of a server. nginx accepts each address once."""
        for address in _addresses(items):
            place = (address.host, address.port)
            if place in self._taken:
                message = f'duplicate "{address}" address and port pair'
                self._duplicates.append(Remark(statement.file, statement.line, message, statement.name))
            self._taken[place] = (section, address)

    def _server(self, statement: Statement) -> Section:
        section = Section("", "server", statement)
        for single in statement.block:
            self._carry(section, single)
        addresses = listening(section)
        if not section.named("protocol"):
            guessed = protocolAt(addresses)
            if guessed is not None:
                section.entries.append(Entry("protocol", [guessed]))
        section.title = f"server {self._name(section, addresses)}"
        return section

    def _name(self, section: Section, addresses: Sequence[ListenAddress]) -> str:
        """A unique name: the protocol, and if needed the port or a number."""
        protocol = section.entry("protocol")
        name = "mail" if protocol is None else protocol.items[0]
        taken = {other.title for other in self.servers}
        if f"server {name}" in taken and addresses and addresses[0].port:
            name = f"{name}-{addresses[0].port}"
        number, first = 1, name
        while f"server {name}" in taken:
            number += 1
            name = f"{first}-{number}"
        return name

    def _leaveOut(self) -> None:
        """Comment out servers that without their missing options would treat clients in another way than nginx."""
        for section in self.servers:
            reason = "" if section.refusal else whyLeftOut(section, self.mail)
            if reason:
                self.refuseServer(section, reason)
        orphans = [address for section, address in self._taken.values() if section.refusal]
        while orphans:
            address = orphans.pop()
            heir = self._heir(address)
            if heir is not None:
                self.refuseServer(heir, f"it would receive the clients of {address}, whose server is left out")
                # Another wildcard, of both address families, may include this one.
                orphans += [address, *(own for section, own in self._taken.values() if section is heir)]

    def _heir(self, address: ListenAddress) -> Section | None:
        """The remaining server whose wildcard address would receive the clients of C{address}."""
        for host, port in filter(None, (address.wildcard, ("::", address.port))):
            section, wildcard = self._taken.get((host, port), (None, address))
            takes = (host, port) == address.wildcard or not wildcard.socket.ipv6only
            if section is not None and takes and not section.refusal:
                return section
        return None


def _defaults(mail: Section) -> Iterator[Entry]:
    """Entries for the defaults of nginx that differ from mailgate's."""
    given = {entry.name for entry in mail.entries}
    if mail.entry("timeout") is not None:
        # It holds for the login at a backend as well.
        given.add("proxy_login_timeout")
    for default in NGINX_DEFAULTS:
        if default.name not in given and default.name in known("mail"):
            yield Entry(default.name, default.value.split("\n"), comment=default.why)


def _addresses(items: Sequence[str]) -> Sequence[ListenAddress]:
    found: Sequence[ListenAddress] = known("server")["listen"].parse("\n".join(items), "/")
    return found


def _discreet(statement: Statement, reason: str) -> str:
    """C{reason} without secrets. The reasons of C{auth_http_header} never contain its value."""
    value = statement.args[-1] if statement.args else ""
    mayHold = {"auth_http": "[@?]", **dict.fromkeys(_FILES, "^data:")}.get(statement.name)
    if mayHold is not None and re.search(mayHold, value) and value in reason:
        return "see the reason in the gateway.ini: it contains the value, which may be a secret"
    return reason
