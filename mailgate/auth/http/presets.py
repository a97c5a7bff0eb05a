# -*- test-case-name: mailgate.test.auth.http.test_presets -*-
"""
The services that C{auth_http_preset} knows by name, and the dialect that each of them speaks.

Each entry says what the service's own front end, a patched nginx or another program, sends to it.
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
    What one service wants. C{escape} is how it reads C{Auth-User} and C{Auth-Pass}, C{encoding} the headers that say
    so; C{byProtocol} are headers that are others for each protocol. It knows C{protocols} alone. C{codesForAll} and
    C{escapesAnswer} are L{Dialect}'s.
    """

    protocols: tuple[str, ...] = ("imap", "pop3", "smtp")
    escape: tuple[str, str] = ("nginx", "nginx")
    encoding: Headers = ()
    names: str = "nginx"
    showsPassword: bool = True
    headers: Headers = ()
    byProtocol: Mapping[str, Headers] = field(factory=dict)
    codesForAll: bool = False
    escapesAnswer: bool = False


PRESETS: dict[str, Preset] = {
    # core/nginx of Mailu: the port of the listener tells the service which rules apply.
    "mailu": Preset(
        names="mailu",
        headers=((b"Auth-Port", b"$server_port"), (b"Client-Port", b"$remote_port")),
        codesForAll=True,
    ),
    # Zimbra's nginx: the lookup servlet routes, passwords are the mailbox server's business.
    "zimbra": Preset(
        protocols=("imap", "pop3"),
        names="zimbra",
        showsPassword=False,
        headers=((b"X-Proxy-IP", b"$server_addr"),),
        escapesAnswer=True,
    ),
    "kolab": Preset(protocols=("imap", "smtp"), escape=("none", "none")),
    # BlueMind sends X-Auth-Port back as Auth-Port: these are its backends' ports.
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
"""The words of C{auth_http_preset}."""


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
    The dialect of C{preset}, for a server of C{protocol}. What an operator has written, C{headers} and whatever is not
    L{None}, takes the place of what the preset says: a header that of the same name.
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
