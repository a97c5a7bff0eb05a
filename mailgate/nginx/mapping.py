# -*- test-case-name: mailgate.test.nginx.test_mapping -*-
"""
What nginx.conf says of a mail proxy as sections of gateway.ini that behave the same, and why the rest cannot be said.

A directive that L{mailgate.config} knows by nginx's name needs nothing here. The tables hold how values are written
otherwise, and what has no place in mailgate.
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
from mailgate.registry import PROTOCOLS

__all__ = ["NGINX_DEFAULTS", "Default", "Mapping"]


@frozen
class Default:
    """
    A C{name} that has C{value} in nginx where it is not written, and another value in mailgate; C{why} is ours. The
    items of a list stand on lines of their own.
    """

    name: str
    value: str
    why: str


NGINX_DEFAULTS = (
    Default(
        "max_commands",
        "999999999999",
        "nginx has no limit, and no client reaches this one. With 1000, as in freenginx, nobody goes on for ever.",
    ),
    Default(
        "xclient",
        "on",
        "nginx sends XCLIENT unasked. With auto, backends that do not offer it are spared; under smtp_auth none they"
        " are not used, so that no client sends as the gateway.",
    ),
    Default(
        "proxy_identity",
        "off",
        "nginx tells IMAP and POP3 backends nothing of the client. With auto Dovecot slows down the one who guesses.",
    ),
    Default(
        "auth_http_keepalive",
        "off",
        "nginx asks by HTTP/1.0, each time over a new connection: what a service sends too much does no harm then. With"
        " auto those are kept that the service keeps open.",
    ),
    Default(
        "auth_http_max_connections",
        "0",
        "nginx asks about as many logins at once as there are. With 64 those beyond wait for their turn.",
    ),
    Default(
        "auth_http_missing_status",
        "accept",
        "nginx lets clients in when the service's answer has no Auth-Status. With refuse nobody gets in by mistake.",
    ),
    Default(
        "sasl_authzid",
        "ignore",
        "nginx opens a user's own mailbox where another one's was asked for. With refuse such a login is refused.",
    ),
    Default(
        "unlisted_auth",
        "on",
        "nginx takes PLAIN and LOGIN even where …_auth does not list them. With off it is as it is announced.",
    ),
    Default(
        "imap_capabilities",
        "IMAP4\nIMAP4rev1\nUIDPLUS",
        "nginx does not announce SASL-IR, LITERAL+ and ID. With them clients log in with fewer round trips.",
    ),
    Default(
        "pop3_capabilities",
        "TOP\nUSER\nUIDL",
        "nginx does not announce PIPELINING, RESP-CODES and AUTH-RESP-CODE. With them clients can tell a wrong password"
        " from a failure: every refusal of one has [AUTH].",
    ),
)
"""What is written into [mail], if nginx.conf does not say it there and mailgate knows it."""


_HEADER_ALONE = (
    "behind the PROXY header of proxy_protocol mailgate sends no XCLIENT, as backends judge the client's right to it"
    " there, and refuse it; proxy_smtp_auth tells them who logs in"
)
"""Why C{xclient on} is not carried over beside C{proxy_protocol}."""

_ACCUMULATED = ("imap_auth", "pop3_auth", "smtp_auth", "ssl_protocols")
"""Words that nginx adds to those before, in one line."""

_FILES = {*PATHS, "ssl_conf_command"}
"""Directives that may have a key in the place of its file."""

_NOT_NEEDED = {
    "accept_mutex": "mailgate's workers share newcomers in another way",
    "accept_mutex_delay": "mailgate's workers share newcomers in another way",
    "daemon": "twistd goes into the background unless it is given -n",
    "load_module": "mailgate has no modules that could be missing",
    "lock_file": "mailgate's workers need none",
    "master_process": "worker_processes says whether there is one",
    "multi_accept": "it tunes how nginx waits for events",
    "pcre_jit": "mailgate has no regular expressions in its configuration",
    "thread_pool": "mailgate reads no files for its clients",
    "timer_resolution": "it tunes how nginx waits for events",
    "worker_aio_requests": "mailgate reads no files for its clients",
}
"""Directives outside of mail that change nothing for mailgate's clients."""

_ELSEWHERE = {
    "debug_connection": "the level debug of error_log is for all connections",
    "debug_points": "it is for nginx's developers",
    "env": "mailgate has the environment that it is started with",
    "http": "mailgate is a gateway for mail: leave it to nginx",
    "pid": "nginx writes that file; name another one in [mailgate]",
    "ssl_engine": "mailgate does not use OpenSSL's engines",
    "stream": "mailgate is a gateway for mail: leave it to nginx",
    "worker_cpu_affinity": "CPUAffinity= of systemd binds that",
    "worker_priority": "Nice= of systemd says that",
    "worker_rlimit_core": "LimitCORE= of systemd says that",
    "working_directory": "twistd --rundir says that",
}
"""Directives outside of mail that are somebody else's to honour."""


class Mapping:
    """
    The C{sections} that C{statements} make; C{remarks} is what is to be told of them.

    @raise Refused: there is no mail block, or no server in it, or two servers have the same address.
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
            told = 'nginx refuses this file, as it has no "events" section; mailgate needs none'
            self.remarks.append(Remark(filename, 0, told))
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
        """Put C{entry} out of force, for that C{reason}."""
        entry.refusal = reason
        if entry.origin is not None:
            reason = _discreet(entry.origin, reason)
            self._tell(entry.origin, f"not carried over: {reason}")
        self._leaveOut()

    def refuseServer(self, section: Section, reason: str) -> None:
        """Put a whole server out of force."""
        section.refusal = reason
        if section.origin is not None:
            self._tell(section.origin, f"not carried over: {reason}")

    def keep(self, entry: Entry, reason: str) -> None:
        """Tell that C{entry} is in force, though it will not do."""
        if entry.origin is not None:
            self._tell(entry.origin, f"carried over, but {_discreet(entry.origin, reason)}")

    def _tell(self, statement: Statement, message: str) -> None:
        # What nginx does not know may be half a secret.
        name = "" if statement.complaint else statement.name
        remark = Remark(statement.file, statement.line, message, name)
        if remark not in self.remarks:
            self.remarks.append(remark)

    def _readProcess(self, statements: Iterable[Statement]) -> None:
        for statement in statements:
            for single in statement.block if statement.name == "events" else (statement,):
                self._outside(single)
        if self.process.entry("error_log") is None:
            default = Entry("error_log", [f"{self._paths.errorLog} error"], comment="nginx's default.")
            self.process.entries.insert(0, default)
        if self.process.entry("worker_connections") is None:
            why = "nginx's default is 512, and counts the connections to backends as well."
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

    def _spareXCLIENT(self, section: Section) -> None:
        """Have C{section} start where nginx sends both a PROXY header and XCLIENT, and mailgate the header alone."""
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
        own.items, own.comment = ["auto"], _HEADER_ALONE
        if xclient.origin is not None:
            self._tell(xclient.origin, f"carried over as auto: {_HEADER_ALONE}")

    def _outside(self, statement: Statement) -> None:
        """A directive of nginx's main or events context."""
        name = statement.name
        if statement.complaint:
            self._tell(statement, f"not carried over: {statement.complaint}")
        elif name == "use" and statement.args != ("epoll",):
            self._tell(statement, "not needed: mailgate takes epoll where the system has it")
        elif name in known("mailgate") and name not in _ELSEWHERE:
            self._carry(self.process, statement)
        elif name in _NOT_NEEDED:
            self._tell(statement, f"not needed: {_NOT_NEEDED[name]}")
        else:
            self._tell(statement, f"not carried over: {_ELSEWHERE.get(name, 'mailgate has nothing of the kind')}")

    def _carry(self, section: Section, statement: Statement) -> None:
        """Add the directive C{statement} to C{section}, or tell why not."""
        if statement.name in REPLACED:
            # Whatever becomes of the last one, nginx does not use those before.
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
            self._tellOfCapabilities(statement, items)
        if statement.name == "listen":
            self._take(section, statement, items)
        if entry is None:
            section.entries.append(Entry(statement.name, items, statement))
        elif statement.name in _ACCUMULATED:
            entry.items = [" ".join([*entry.items, *items])]
        else:
            entry.items.extend(items)

    def _tellOfCapabilities(self, statement: Statement, items: Sequence[str]) -> None:
        """Tell of those that clients do not hear, and of parameters that nginx takes for capabilities."""
        for capability, reason in leftOut(statement.name.partition("_")[0], tuple(items)):
            self._tell(statement, f'carried over, but "{capability}" {reason}')
        for before, item in pairwise(items):
            if item.isdigit():
                whole = f"{before} {item}"
                self._tell(
                    statement,
                    f'carried over as two capabilities, which "{whole}" is in nginx without quotes: write {whole} on'
                    " one line",
                )

    def _items(self, section: Section, statement: Statement, entry: Entry | None) -> list[str]:
        if statement.complaint:
            raise ValueError(statement.complaint)
        declared = known(section.level).get(statement.name)
        if declared is None:
            raise ValueError(f"mailgate does not have it in [{section.level}]")
        items = written(statement.name, statement.args, self._paths)
        before = 0 if entry is None else len(entry.items)
        for number, item in enumerate(items, before):
            fitsIni(item, number == 0)
            if statement.name not in OF_THE_HOST:
                declared.parse(item, self._paths.configuration)
        return items

    def _take(self, section: Section, statement: Statement, items: Sequence[str]) -> None:
        """Note where a server listens: nginx takes each address once."""
        for address in _addresses(items):
            place = (address.host, address.port)
            if place in self._taken:
                told = f'duplicate "{address}" address and port pair'
                self._duplicates.append(Remark(statement.file, statement.line, told, statement.name))
            self._taken[place] = (section, address)

    def _server(self, statement: Statement) -> Section:
        section = Section("", "server", statement)
        for single in statement.block:
            self._carry(section, single)
        addresses = listening(section)
        if not section.named("protocol"):
            guessed = _protocolOf(addresses)
            if guessed is not None:
                section.entries.append(Entry("protocol", [guessed]))
        section.title = f"server {self._name(section, addresses)}"
        return section

    def _name(self, section: Section, addresses: Sequence[ListenAddress]) -> str:
        """A name that no other server has: the protocol, and what tells it from others."""
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
        """Put out of force whichever server would not keep to what nginx.conf says of its clients."""
        for section in self.servers:
            reason = "" if section.refusal else whyLeftOut(section, self.mail)
            if reason:
                self.refuseServer(section, reason)
        orphans = [address for section, address in self._taken.values() if section.refusal]
        while orphans:
            address = orphans.pop()
            heir = self._heir(address)
            if heir is not None:
                self.refuseServer(heir, f"it would be given the clients of {address}, whose server is left out")
                # Behind the wildcard there may be another, of both families.
                orphans += [address, *(own for section, own in self._taken.values() if section is heir)]

    def _heir(self, address: ListenAddress) -> Section | None:
        """The server in force that listens at a wildcard which takes in C{address}, if nobody else does."""
        for host, port in filter(None, (address.wildcard, ("::", address.port))):
            section, wildcard = self._taken.get((host, port), (None, address))
            takes = (host, port) == address.wildcard or not wildcard.socket.ipv6only
            if section is not None and takes and not section.refusal:
                return section
        return None


def _defaults(mail: Section) -> Iterator[Entry]:
    """nginx's defaults that are not mailgate's."""
    given = {entry.name for entry in mail.entries}
    for default in NGINX_DEFAULTS:
        if default.name not in given and default.name in known("mail"):
            yield Entry(default.name, default.value.split("\n"), comment=f"nginx's default. {default.why}")


def _addresses(items: Sequence[str]) -> Sequence[ListenAddress]:
    found: Sequence[ListenAddress] = known("server")["listen"].parse("\n".join(items), "/")
    return found


def _protocolOf(addresses: Iterable[ListenAddress]) -> str | None:
    """The protocol of the first well-known port."""
    for address in addresses:
        for protocol in PROTOCOLS.values():
            if address.port in protocol.ports:
                return protocol.name
    return None


def _discreet(statement: Statement, reason: str) -> str:
    """C{reason} without what may be a secret. Of an C{auth_http_header} no reason holds the value."""
    value = statement.args[-1] if statement.args else ""
    mayHold = {"auth_http": "[@?]", **dict.fromkeys(_FILES, "^data:")}.get(statement.name)
    if mayHold is not None and re.search(mayHold, value) and value in reason:
        return "the reason stands in the file alone, as it holds the value, which may be a secret"
    return reason
