"""
What operators write: gateway.ini, nginx.conf, and account files. A mistake in them is an error with its line, never a
traceback.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from mailgate.auth.passwdfile.accounts import BadLine, parseAccount
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.nginx.conf import Refused
from mailgate.nginx.importer import importNginx
from mailgate.test.fuzz.frame import Target, mutations

__all__ = ["TARGETS"]

_INI = b"""[mailgate]
error_log = stderr info
worker_processes = 2

[mail]
auth_http = http://127.0.0.1:9000/auth
imap_capabilities =
    IMAP4rev1
    UIDPLUS
server_name = mx.example.com

[upstream pool]
server =
    192.0.2.1:143 weight=2 max_fails=1
    192.0.2.2:143 backup
hash = $user

[server imap]
listen =
    127.0.0.1:143
    [::1]:143
protocol = imap
imap_auth = plain login
proxy_timeout = 1d
limit_exempt = 10.0.0.0/8
"""
_INI_WORDS = (
    *(b"[mail]\n", b"[server x]\n", b"[upstream x]\n", b"listen = ", b"server = ", b"protocol = smtp\n", b"\n", b"  "),
    *(b" = ", b"#", b";", b"sasl_max_response = 2k\n", b"timeout = ", b"10s", b"1k", b"on", b"auth_http_header = "),
    *(b"http://", b"unix:", b"127.0.0.1:0", b"[", b"]", b"$", b"%", b"\xef\xbb\xbf", b"\xc3\xa4", b"\x85", b"\r"),
)
_NGINX = b"""
worker_processes auto;
error_log /nowhere/error.log info;
mail {
    server_name mail.example.com;
    auth_http 127.0.0.1:9000/auth;
    imap_capabilities "IMAP4rev1" "UIDPLUS";
    server {
        listen 143;
        protocol imap;
        starttls on;
        ssl_certificate /nowhere/cert.pem;
        ssl_certificate_key /nowhere/key.pem;
    }
    server { listen 127.0.0.1:25; protocol smtp; smtp_auth none; xclient off; }
}
"""
_NGINX_WORDS = (
    *(b"mail {", b"server {", b"}", b"{", b";", b'"', b"'", b"\\", b"#", b"\n", b" ", b"$x", b"${x}", b"listen 143;"),
    *(b"protocol pop3;", b"auth_http ", b"proxy_pass_error_message on;", b"\xff", b"\xc3\xa4", b"timeout 10s;", b"on"),
)
_ACCOUNTS = (
    b"joe:{PLAIN}sesame::::::host=192.0.2.1 port=143 destuser=%n@x",
    b"ann:{SHA256.HEX}9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    b"bob:{CRYPT}$6$salt$hash:::::/home:allow_nets=10.0.0.0/8,local nologin",
    b"eve:*",
)
_ACCOUNT_WORDS = (
    *(b":", b"{PLAIN}", b"{SSHA512}", b"{MD5.B64}", b"{CRYPT}", b"$2y$05$", b"$argon2id$", b"host=", b"[::1]", b"%u"),
    *(b" ", b"\t", b"userdb_", b"ssl=yes", b"port=99999", b"allow_nets=", b"\0", b"\xff", b"*"),
)


def _ini(pieces: Sequence[bytes]) -> Any:
    """The servers of a gateway.ini, or its mistakes."""
    (data,) = pieces
    try:
        settings = parse(data.decode("utf-8", "replace"), "/nowhere/gateway.ini")
    except ConfigurationError as error:
        assert str(error)
        return str(error)
    return [server.name for server in settings.servers]


def _nginx(pieces: Sequence[bytes]) -> Any:
    """The gateway.ini of an nginx.conf, or its mistakes."""
    (data,) = pieces
    # Other files are not read.
    data = data.replace(b"include", b"exclude")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "nginx.conf")
        with open(path, "wb") as opened:
            opened.write(data)
        try:
            imported = importNginx(path, folder)
        except Refused as error:
            assert str(error)
            return None
    return len(imported.text)


def _account(pieces: Sequence[bytes]) -> Any:
    """An account, or what is wrong with its line."""
    (data,) = pieces
    try:
        return parseAccount(data, "imap", (143, 993)).user
    except BadLine as error:
        assert "sesame" not in str(error)
        return str(error)


TARGETS = (
    Target("ini", _ini, mutations((_INI,), _INI_WORDS), 40, isCut=False),
    Target("nginx", _nginx, mutations((_NGINX,), _NGINX_WORDS), 25, isCut=False),
    Target("accounts", _account, mutations(_ACCOUNTS, _ACCOUNT_WORDS), 150, isCut=False),
)
