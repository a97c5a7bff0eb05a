# -*- test-case-name: mailgate.test.auth.passwdfile.test_accounts -*-
"""
Parses a line of Dovecot's passwd-file into an L{Account}, as far as a gateway needs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attrs import field, frozen
from twisted.internet.abstract import isIPAddress

from mailgate.auth.passwdfile.passwords import Password, parsePassword
from mailgate.auth.passwdfile.slowhashes import UnusablePassword
from mailgate.directives import isHostName
from mailgate.login import Backend, BackendTLS, fitForWire

__all__ = ["Account", "BadLine", "parseAccount"]

_ROUTING = {"host", "port", "ssl", "starttls", "destuser", "pass"}
_FIELDS = _ROUTING | {"allow_nets", "allow_real_nets", "nologin", "fail", "proxy", "proxy_maybe"}
_VARIABLE = re.compile(rb"%(.?)", re.DOTALL)

Net = IPv4Network | IPv6Network


class BadLine(Exception):
    """A line of the account file is invalid. The text is the reason, for the operator, and quotes no secret."""


@frozen
class Account:
    """
    One line of the account file.

    @ivar user: the user name.
    @ivar password: the stored password; L{None} if the account is locked.
    @ivar backend: the account's backend; L{None} means that of C{proxy_pass}.
    @ivar destUser: the user name for the backend; empty means C{user}.
    @ivar backendPassword: the password for the backend; L{None} means the client's own.
    @ivar barred: the name of the field that forbids logins, C{nologin} or C{fail}; empty if there is none.
    @ivar nets: the networks of C{allow_nets}; a L{None} among them stands for unix sockets. L{None} means any address.
    """

    user: bytes
    password: Password | None = field(repr=False)
    backend: Backend | None = None
    destUser: bytes = b""
    backendPassword: bytes | None = field(default=None, repr=False)
    barred: str = ""
    nets: tuple[Net | None, ...] | None = None

    def admits(self, host: str) -> bool:
        """
        Check a client's address against C{allow_nets}.

        @param host: an address, or C{unix:}.
        @return: whether the client may log in.
        """
        if self.nets is None:
            return True
        if host.startswith("unix:"):
            return None in self.nets
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(net is not None and address in net for net in self.nets)


def parseAccount(line: bytes, protocol: str, ports: tuple[int, int], isImplicit: bool = False) -> Account:
    """
    Parse a line of the account file.

    @param line: the line without its end.
    @param protocol: the protocol of the server.
    @param ports: the default ports of the backend, without and with C{ssl=yes}; 0 if the protocol has none.
    @param isImplicit: whether the server has C{proxy_ssl = on}, which is for lines without C{ssl} and C{starttls}.
    @raise BadLine: the line is invalid.
    """
    # The last field may contain colons, in IPv6 addresses.
    user, *rest = line.split(b":", 7)
    if not user or not rest:
        raise BadLine("the line must start with USER:PASSWORD")
    if not fitForWire(line):
        raise BadLine("the line contains CR or NUL")
    try:
        password = parsePassword(rest[0])
    except UnusablePassword as error:
        raise BadLine(f"the password {error}") from error
    if password is not None and not fitForWire(password.plain):
        raise BadLine("the password contains CR, LF or NUL, which no client can send")
    fields = _extraFields(rest[6] if len(rest) > 6 else b"", user)
    backend = _backend(fields, protocol, ports, isImplicit)
    return Account(
        user, password, backend, fields.get("destuser", b""), fields.get("pass"), _barred(fields), _nets(fields)
    )


def _extraFields(text: bytes, user: bytes) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    for word in text.split(b" "):
        key, _, value = word.partition(b"=")
        name = key.decode("latin-1")
        if name not in _FIELDS:
            continue
        if name in fields:
            raise BadLine(f"{name} occurs twice")
        if name in ("host", "destuser", "pass") and not value:
            raise BadLine(f"{name} has no value")
        fields[name] = _expand(name, value, user)
    return fields


def _expand(name: str, value: bytes, user: bytes) -> bytes:
    local, _, domain = user.partition(b"@")
    variables = {b"%": b"%", b"u": user, b"n": local, b"d": domain}
    if not all(letter in variables for letter in _VARIABLE.findall(value)):
        raise BadLine(f"{name} contains an unknown variable; only %u, %n and %d are known, and %% is a percent sign")
    return _VARIABLE.sub(lambda match: variables[match[1]], value)


def _backend(fields: Mapping[str, bytes], protocol: str, ports: tuple[int, int], isImplicit: bool) -> Backend | None:
    tls, verify = _tls(fields)
    port = _port(fields, ports[tls is BackendTLS.IMPLICIT or (tls is None and isImplicit)])
    if "host" not in fields:
        if "port" in fields or tls is not None:
            # If they were ignored, the password would go to another place, or without TLS.
            raise BadLine("port, ssl and starttls need a host; they do not apply to the backend of proxy_pass")
        return None
    if not port:
        raise BadLine(f"port is missing; {protocol} has no default port")
    return Backend(_host(fields["host"].decode("latin-1")), port, tls, verify)


def _host(text: str) -> str:
    if isIPAddress(text) or isHostName(text):
        return text
    try:
        return str(IPv6Address(text[1:-1] if text.startswith("[") and text.endswith("]") else text))
    except ValueError:
        raise BadLine("host must be a host name or an IP address; write the port as port=NUMBER") from None


def _port(fields: Mapping[str, bytes], default: int) -> int:
    if "port" not in fields:
        return default
    text = fields["port"]
    if not re.fullmatch(rb"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise BadLine("port must be a number from 1 to 65535")
    return int(text)


def _tls(fields: Mapping[str, bytes]) -> tuple[BackendTLS | None, bool]:
    chosen: list[tuple[BackendTLS | None, bool]] = [(None, True)]
    for name, tls in (("ssl", BackendTLS.IMPLICIT), ("starttls", BackendTLS.STARTTLS)):
        value = fields.get(name, b"no")
        if value not in (b"", b"yes", b"any-cert", b"no"):
            raise BadLine(f"{name} must be yes, any-cert or no")
        if value != b"no":
            chosen.append((tls, value != b"any-cert"))
    if len(chosen) > 2:
        raise BadLine("ssl conflicts with starttls; remove one of them")
    return chosen[-1]


def _barred(fields: Mapping[str, bytes]) -> str:
    if "fail" in fields:
        return "fail"
    # Dovecot prefers proxy to host, and host to nologin: with proxy, nologin only means "not on this machine".
    return "nologin" if "nologin" in fields and not {"proxy", "proxy_maybe"} & fields.keys() else ""


def _nets(fields: Mapping[str, bytes]) -> tuple[Net | None, ...] | None:
    if "allow_real_nets" in fields:
        raise BadLine("allow_real_nets is not supported; use allow_nets")
    if "allow_nets" not in fields:
        return None
    names = fields["allow_nets"].decode("latin-1").split(",")
    try:
        return tuple(None if name == "local" else ip_network(name, strict=False) for name in names)
    except ValueError:
        raise BadLine("allow_nets must be a list of networks, such as 10.0.0.0/8,2001:db8::/32") from None
