"""
An nginx configuration that is imported.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import GatewaySettings, parse
from mailgate.nginx.importer import importNginx
from mailgate.sandbox.certificate import ensureCertificate

__all__ = ["GUIDE", "MAIL", "ImportCase"]

GUIDE = """\
worker_processes auto;

mail {
    server_name mail.example.com;
    auth_http   localhost:9000/cgi-bin/nginxauth.cgi;

    proxy_pass_error_message on;

    ssl                 on;
    ssl_certificate     /etc/ssl/certs/server.crt;
    ssl_certificate_key /etc/ssl/certs/server.key;
    ssl_protocols       TLSv1 TLSv1.1 TLSv1.2;
    ssl_ciphers         HIGH:!aNULL:!MD5;
    ssl_session_cache   shared:SSL:10m;
    ssl_session_timeout 10m;

    server {
        listen     25;
        protocol   smtp;
        smtp_auth  login plain cram-md5;
    }

    server {
        listen    110;
        protocol  pop3;
        pop3_auth plain apop cram-md5;
}

     server {
        listen   143;
        protocol imap;
    }
}
"""
"""The example of a guide that has been copied for years. In the original, the first line lacks its ";"."""

MAIL = "events {{ }} mail {{ auth_http 127.0.0.1:9; {} }}"


class ImportCase(SynchronousTestCase):
    """An nginx.conf in a new directory."""

    def setUp(self):
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)
        self.path = os.path.join(self.folder, "nginx.conf")

    def write(self, text: str | bytes) -> None:
        with open(self.path, "wb") as opened:
            opened.write(text.encode() if isinstance(text, str) else text)

    def imported(self, text: str | bytes) -> tuple[str, list[str]]:
        """Return the ini file and the remarks, without the directory."""
        self.write(text)
        imported = importNginx(self.path, "/srv/nginx")
        return imported.text, [str(remark).replace(self.folder + os.sep, "") for remark in imported.remarks]

    def settings(self, text: str | bytes) -> tuple[GatewaySettings, list[str]]:
        """Return the settings of the ini file, and the remarks."""
        ini, remarks = self.imported(text)
        return parse(ini), remarks

    def tlsPair(self) -> str:
        """Return the directives for a certificate and its key."""
        certificate, key = map(os.path.abspath, ensureCertificate(self.folder, ["localhost"]))
        return f"ssl_certificate {certificate}; ssl_certificate_key {key};"

    def lines(self, text: str, inner: str) -> list[str]:
        """Return the lines of the ini file that contain C{inner}."""
        return [line for line in text.splitlines() if inner in line]
