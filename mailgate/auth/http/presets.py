# -*- test-case-name: mailgate.test.auth.http.test_presets -*-
"""
The services of C{auth_http_preset} and the dialect of each. An entry describes what the service's own front end sends:
a patched nginx or another program.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from mailgate.auth.http.dialect import ESCAPES, PROTOCOL_NAMES, Dialect

__all__ = ["PRESETS", "Preset", "dialectOf"]

Headers = tuple[tuple[bytes, bytes], ...]


@frozen
class Preset:
    """
    The requirements of a service.

    @ivar protocols: the protocols that the service supports.
    @ivar escape: how it expects C{Auth-User} and C{Auth-Pass}: two words of C{auth_http_escape}.
    @ivar encoding: headers that announce this escape.
    @ivar names: the names of protocols that it expects: a word of C{auth_http_protocol_names}.
    @ivar showsPassword: whether it receives the client's password (C{auth_http_pass}).
    @ivar headers: additional headers, with variables.
    @ivar byProtocol: additional headers for each protocol.
    @ivar codesForAll: see L{Dialect}.
    @ivar escapesAnswer: see L{Dialect}.
    """

    protocols: tuple[str, ...] = ("imap", "pop3", "smtp", "sieve")
    escape: tuple[str, str] = ("nginx", "nginx")
    encoding: Headers = ()
    names: str = "nginx"
    showsPassword: bool = True
    headers: Headers = ()
    byProtocol: Mapping[str, Headers] = field(factory=dict)
    codesForAll: bool = False
    escapesAnswer: bool = False


PRESETS: dict[str, Preset] = {
    # core/nginx of Mailu: the service selects its rules by the port of the listener.
    "mailu": Preset(
        names="mailu",
        headers=((b"Auth-Port", b"$server_port"), (b"Client-Port", b"$remote_port")),
        codesForAll=True,
    ),
    # Zimbra's nginx: the lookup servlet only names the backend; the mailbox server checks the password.
    "zimbra": Preset(
        protocols=("imap", "pop3"),
        names="zimbra",
        showsPassword=False,
        headers=((b"X-Proxy-IP", b"$server_addr"),),
        escapesAnswer=True,
    ),
    "kolab": Preset(protocols=("imap", "smtp"), escape=("none", "none")),
    # BlueMind returns X-Auth-Port as Auth-Port: these are the ports of its backends.
    "bluemind": Preset(
        protocols=("imap", "pop3"),
        escape=("base64", "base64"),
        byProtocol={"imap": ((b"X-Auth-Port", b"1143"),), "pop3": ((b"X-Auth-Port", b"1110"),)},
    ),
    "nauthilus": Preset(
        escape=("none", "base64url"),
        encoding=((b"X-Auth-Password-Encoded", b"1"),),
        headers=(
            (b"X-Local-IP", b"$server_addr"),
            (b"X-Auth-Port", b"$server_port"),
            (b"X-Client-Port", b"$remote_port"),
            (b"X-External-Session-ID", b"$session_id"),
        ),
    ),
}
"""The presets by the word of C{auth_http_preset}."""


def dialectOf(
    preset: Preset,
    protocol: str,
    headers: Headers,
    escape: str | None = None,
    names: str | None = None,
    showsPassword: bool | None = None,
    acceptsMissing: bool = False,
) -> Dialect:
    """
    Return the dialect of a preset, changed by the directives of a server. A header replaces one of the same name.

    @param preset: the preset.
    @param protocol: the protocol of the server.
    @param headers: the headers of C{auth_http_header}.
    @param escape: the word of C{auth_http_escape}; L{None} keeps that of the preset, as for the next two.
    @param names: the word of C{auth_http_protocol_names}.
    @param showsPassword: the value of C{auth_http_pass}.
    @param acceptsMissing: whether C{auth_http_missing_status = accept} is set.
    """
    escapes = preset.escape if escape is None else (escape, escape)
    own = preset.encoding if escape is None else ()
    own += preset.headers + preset.byProtocol.get(protocol, ())
    written = {name.lower() for name, _ in headers}
    return Dialect(
        headers=(*(header for header in own if header[0].lower() not in written), *headers),
        escapeUser=ESCAPES[escapes[0]],
        escapePassword=ESCAPES[escapes[1]],
        protocolName=PROTOCOL_NAMES[names or preset.names],
        showsPassword=preset.showsPassword if showsPassword is None else showsPassword,
        acceptsMissing=acceptsMissing,
        codesForAll=preset.codesForAll,
        escapesAnswer=preset.escapesAnswer,
    )
