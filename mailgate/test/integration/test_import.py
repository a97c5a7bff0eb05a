"""
A gateway that runs with an imported nginx.conf.
"""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from mailgate.nginx.importer import importNginx
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.gateway import GatewayProcess

CONFIGURATION = """\
error_log gateway.log info;
events {{ }}
mail {{
    server_name mx.example.com;
    auth_http 127.0.0.1:9/auth;
    include mail.d/*.conf;
    server {{ listen 127.0.0.1:{pop3}; protocol pop3; pop3_capabilities TOP "EXPIRE # 5"; }}
}}
"""


class ImportTests(SynchronousTestCase):
    """An imported configuration in use."""

    def test_serves(self) -> None:
        """Its servers greet and offer what nginx.conf says, each at its port; its log is the file of nginx.conf."""
        folder, pop3, smtp = newFolder("import"), freePort(), freePort()
        os.mkdir(os.path.join(folder, "mail.d"))
        path = os.path.join(folder, "nginx.conf")
        self.write(path, CONFIGURATION.format(pop3=pop3))
        smtpServer = f'server {{ listen 127.0.0.1:{smtp}; protocol smtp; smtp_capabilities "SIZE 10" 8BITMIME; }}'
        self.write(os.path.join(folder, "mail.d", "smtp.conf"), smtpServer)
        gateway = GatewayProcess(folder, importNginx(path, folder).text, [pop3, smtp])
        self.addCleanup(gateway.stop)
        capabilities = self.said(pop3, b"CAPA\r\nQUIT\r\n")
        self.assertIn(b"\r\nTOP\r\nEXPIRE # 5\r\n", capabilities)
        answer = self.said(smtp, b"EHLO x\r\nQUIT\r\n")
        self.assertTrue(answer.startswith(b"220 mx.example.com "), answer)
        self.assertIn(b"\r\n250-SIZE 10\r\n250-8BITMIME\r\n", answer)
        # This reads its log.
        gateway.stop()

    def write(self, path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(text)

    def said(self, port: int, commands: bytes) -> bytes:
        """The replies of the server at C{port} to C{commands}, the last of which ends the connection."""
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
            connection.makefile("rb") as lines,
        ):
            # An SMTP client that sends before the greeting is refused.
            greeting = lines.readline()
            connection.sendall(commands)
            return greeting + lines.read()
