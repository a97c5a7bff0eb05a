# -*- test-case-name: mailgate.test.integration.test_loops -*-
"""
Two gateways that are each other's backends: a login ends in a temporary failure, after as many connections as
proxy_hops allows.
"""

from __future__ import annotations

import os
import re
import shutil
import socket

from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import freePort, newFolder, shared, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import Address, BackendTestCase

HOPS = {"imap": 7, "pop3": 7, "smtp": 7, "sieve": 7, "imap-tls": 4, "pop3-header": 3, "smtp-header": 3, "smtp-on": 7}
"""proxy_hops of each server; what follows the protocol is how it speaks with the backend."""

TEMPORARY = {"imap": b"NO [UNAVAILABLE]", "pop3": b"-ERR [SYS/TEMP]", "smtp": b"454 4.7.0", "sieve": b"NO (TRYLATER)"}

DIRECTIVES = {
    "on": "xclient = on",
    "tls": "proxy_ssl = starttls\nproxy_ssl_verify = off\nimap_capabilities =\n    IMAP4rev1\n    ID",
    "header": "proxy_protocol = on\nset_real_ip_from = 127.0.0.1",
}


class Pair:
    """Two gateways; each server of one has the server of the same name of the other as its backend."""

    def __init__(self, authority):
        self.folder = newFolder("loops")
        self.ports = [{name: freePort() for name in HOPS} for _ in range(2)]
        pair = authority.sign("loops")
        self.gateways = []
        for number in range(2):
            folder = os.path.join(self.folder, str(number))
            os.mkdir(folder)
            ini = f"[mailgate]\nerror_log = {folder}/gateway.log info\n[mail]\nserver_name = gate{number}.example.com\n"
            ini += f"ssl_certificate = {pair.certificate}\nssl_certificate_key = {pair.key}\n"
            for name, hops in HOPS.items():
                protocol, _, kind = name.partition("-")
                listen = f"{self.ports[number][name]}{' proxy_protocol' if kind == 'header' else ''}"
                ini += f"[server {name}]\nlisten = 127.0.0.1:{listen}\nprotocol = {protocol}\nproxy_hops = {hops}\n"
                ini += "starttls = on\n" if kind == "tls" else ""
                ini += f"proxy_pass = 127.0.0.1:{self.ports[1 - number][name]}\n{DIRECTIVES.get(kind, '')}\n"
            self.gateways.append(GatewayProcess(folder, ini, list(self.ports[number].values())))

    def log(self):
        """What both have logged."""
        return "".join(gateway.log() for gateway in self.gateways)

    def stop(self):
        """End them."""
        for gateway in self.gateways:
            gateway.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class LoopTests(BackendTestCase):
    """Logins that no backend can take."""

    def assertEnds(self, name):
        """A login at the server C{name} of the first gateway fails, for now, and its connections are as many."""
        logged = self.login(name)
        # Not "loop": the folder has it in its name, and warnings of the start may come late.
        loops = [line for line in logged.splitlines() if ": login loops: " in line]
        self.assertEqual(len(loops), 1, loops)

    def login(self, name, connections=0):
        """
        What is logged of a login at the server C{name} that fails, for now, after so many C{connections}; 0 is as many
        as proxy_hops allows.
        """
        connections = connections or HOPS[name]
        pair = shared("loops", lambda: Pair(self.backends.authority))
        before = [len(gateway.log()) for gateway in pair.gateways]
        protocol = name.partition("-")[0]
        address = Address(protocol, pair.ports[0][name], "plain", self.backends.authority.path)
        connected = socket.create_connection(("127.0.0.1", address.port), PATIENCE)
        if "header" in name:
            connected.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 40123 25\r\n")
        client = RawClient(address, connected)
        self.addCleanup(client.close)
        answer = client.login(self.user, PASSWORD)
        self.assertEqual(answer[: len(TEMPORARY[protocol])], TEMPORARY[protocol])
        client.close()

        def logged():
            return "".join(gateway.log()[length:] for gateway, length in zip(pair.gateways, before, strict=True))

        ports = "|".join(str(ports[name]) for ports in pair.ports)
        pattern = re.compile(rf"connection ended: .*, attempts 1, .*server 127\.0\.0\.1:(?:{ports}),")
        waitUntil(lambda: len(pattern.findall(logged())) >= connections, "all connections end")
        self.assertEqual(len(pattern.findall(logged())), connections)
        self.assertNotIn(PASSWORD, logged())
        return logged()

    def test_imap(self):
        """IMAP counts by ID, which is sent to a backend that greets as we do."""
        self.assertEnds("imap")

    def test_imapTLS(self):
        """And where the capabilities list ID."""
        self.assertEnds("imap-tls")

    def test_pop3(self):
        """POP3 counts by NOOP."""
        self.assertEnds("pop3")

    def test_smtp(self):
        """So does SMTP."""
        self.assertEnds("smtp")

    def test_sieve(self):
        """So does ManageSieve, by NOOP."""
        self.assertEnds("sieve")

    def test_unasked(self):
        """With xclient on nothing is to be counted: the second gateway refuses XCLIENT."""
        self.assertIn("refuses XCLIENT with 500", self.login("smtp-on", 1))

    def test_header(self):
        """A PROXY header keeps no gateway from counting."""
        self.assertEnds("pop3-header")
        self.assertEnds("smtp-header")
