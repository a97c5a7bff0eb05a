# -*- test-case-name: mailgate.test.integration.test_saslframe -*-
"""
Backends with all mechanisms of SASL: a Dovecot with verifiers of passwords for SCRAM in place of passwords, and with an
introspection server for tokens; it serves IMAP, POP3 and ManageSieve. A Postfix, if it can run, asks it about logins.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

from mailgate.login import Method
from mailgate.scram.secrets import derivedSecret, written
from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import newFolder
from mailgate.test.integration.dovecot import PASSWORD, USERS, Dovecot
from mailgate.test.integration.pigeonhole import SERVICE
from mailgate.test.integration.programs import missing
from mailgate.test.integration.site import Backends

__all__ = ["SALT", "SaslBackends", "verifier"]

SALT = b"salt of Dovecot."
"""The salt of all verifiers of Dovecot."""

_STATIC = f"  driver = static\n  args = password={PASSWORD}\n"

_MORE = """
protocols = imap pop3 sieve
auth_mechanisms = plain login xoauth2 oauthbearer scram-sha-256
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {path}
}}
"""

_OAUTH = """
introspection_url = http://127.0.0.1:{port}/
introspection_mode = post
username_attribute = email
active_attribute = active
active_value = true
"""


def verifier(method: Method, salt: bytes, user: str = "", password: str = PASSWORD) -> str:
    """A line of a passwd-file with the verifier of C{password}."""
    secret = written(derivedSecret(method, password.encode(), salt, 4096)).decode()
    return f"{user}:{{{method.value.upper()}}}{secret}\n"


class _Provider(BaseHTTPRequestHandler):
    """The introspection of RFC 7662. The tokens C{USER.any} are active."""

    def do_POST(self) -> None:
        """C{token=TOKEN}."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        user, dot, _ = form["token"][0].partition(".")
        body = json.dumps({"active": True, "email": user} if dot else {"active": False}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent."""


class _Introspection(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client: object) -> None:
        """Dovecot may leave before it has read the answer."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client)  # type: ignore[arg-type]


class _SaslDovecot(Dovecot):
    """The Dovecot."""

    listening = (*Dovecot.listening, "sieve", "sieve-haproxy")

    def _configuration(self, authority: Authority) -> str:
        with open(f"{self.folder}/users", "w") as file:
            file.write("".join(verifier(Method.SCRAM_SHA_256, SALT, user) for user in USERS))
        accounts = f"  driver = passwd-file\n  args = {self.folder}/users\n"
        return super()._configuration(authority).replace(_STATIC, accounts)


class SaslBackends(Backends):
    """The servers."""

    protocols: tuple[str, ...] = ("imap", "pop3", "sieve")

    def __init__(self) -> None:
        self.folder = newFolder("sasl")
        os.chmod(self.folder, 0o755)
        self.authority = Authority(self.folder, "authority")
        self._provider = _Introspection(("127.0.0.1", 0), _Provider)
        threading.Thread(target=self._provider.serve_forever, daemon=True).start()
        path = os.path.join(self.folder, "oauth2.conf")
        with open(path, "w") as file:
            file.write(_OAUTH.format(port=self._provider.server_port))
        self.dovecot = _SaslDovecot(self.authority, SERVICE + _MORE.format(path=path))
        ports = dict(self.dovecot.ports)
        if missing(("postfix",)) is None:
            self._startPostfix()
            self.protocols = ("imap", "pop3", "smtp", "sieve")
            ports["smtp"] = self.postfix.ports["trusting"]
        self.services = {name: ("127.0.0.1", port) for name, port in ports.items()}

    def judging(self, protocol: str) -> int:
        """The port of the server of C{protocol} that needs a login."""
        return self.postfix.ports["sasl"] if protocol == "smtp" else self.dovecot.ports[protocol]

    def stop(self) -> None:
        super().stop()
        self._provider.shutdown()
        self._provider.server_close()
