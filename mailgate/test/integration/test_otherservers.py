# -*- test-case-name: mailgate.test.integration.test_otherservers -*-
"""
IMAP clients of servers that other people wrote: what a client receives through the gateway is what it receives from the
server, byte for byte, except the list of capabilities that it would not have otherwise.

The servers imitate what known servers send in their greetings and in their answers to a login.
"""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Mapping
from typing import BinaryIO

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address

__all__: list[str] = []


@frozen
class Kind:
    """
    How a server answers. C{TAG} is the client's tag.

    @ivar greeting: its greeting.
    @ivar before: its answer to CAPABILITY before the login.
    @ivar login: its answer to a login.
    @ivar after: its answer to CAPABILITY after the login.
    @ivar learned: what the gateway announces before the login, without its own words.
    @ivar isAsked: whether the gateway asks it for its capabilities after the login, and adds them to the answer.
    """

    greeting: str
    before: str
    login: str
    after: str
    learned: str
    isAsked: bool


EXCHANGE = Kind(
    "* OK The Microsoft Exchange IMAP4 service is ready. [QgBMADAAUABSADAAMQBDAEEA]",
    "* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID IDLE LITERAL+\nTAG OK done",
    "TAG OK LOGIN completed.",
    "* CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN UIDPLUS MOVE ID IDLE LITERAL+ CLIENTACCESSRULES\nTAG OK done",
    "IMAP4 IMAP4rev1 SASL-IR UIDPLUS MOVE ID IDLE LITERAL+",
    True,
)
GMAIL = Kind(
    "* OK Gimap ready for requests from 192.0.2.7 d2e1a72fcca58",
    "* CAPABILITY IMAP4rev1 IDLE QUOTA ID XLIST X-GM-EXT-1 SASL-IR AUTH=XOAUTH2 AUTH=PLAIN\nTAG OK Thats all",
    "* CAPABILITY IMAP4rev1 IDLE QUOTA ID XLIST X-GM-EXT-1 UIDPLUS ENABLE MOVE\nTAG OK joe authenticated (Success)",
    "* CAPABILITY IMAP4rev1 IDLE QUOTA ID XLIST X-GM-EXT-1 UIDPLUS ENABLE MOVE\nTAG OK Success",
    "IMAP4rev1 IDLE QUOTA ID SASL-IR",
    False,
)
CYRUS = Kind(
    "* OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR] mx Cyrus IMAP 3.8.1 server ready",
    "* CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR\nTAG OK Completed",
    "TAG OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE ACL RIGHTS=kxten QUOTA] User logged in SESSIONID=<mx-1-2-3>",
    "* CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE ACL RIGHTS=kxten QUOTA\nTAG OK Completed",
    "IMAP4rev1 LITERAL+ ID ENABLE SASL-IR",
    False,
)
COURIER = Kind(
    "* OK [CAPABILITY IMAP4rev1 UIDPLUS THREAD=REFERENCES SORT QUOTA IDLE ACL ACL2=UNION] Courier-IMAP ready.",
    "* CAPABILITY IMAP4rev1 UIDPLUS THREAD=REFERENCES SORT QUOTA IDLE ACL ACL2=UNION\nTAG OK CAPABILITY completed",
    "* OK [ALERT] Filesystem notification initialization error\nTAG OK LOGIN Ok.",
    "* CAPABILITY IMAP4rev1 UIDPLUS THREAD=REFERENCES SORT QUOTA IDLE ACL ACL2=UNION\nTAG OK CAPABILITY completed",
    "IMAP4rev1 UIDPLUS THREAD=REFERENCES SORT QUOTA IDLE ACL ACL2=UNION SASL-IR",
    True,
)
TWICE = Kind(
    "* OK ready",
    "* CAPABILITY IMAP4rev1 ID\n* CAPABILITY IMAP4rev1 MOVE\nTAG OK done",
    "* CAPABILITY IMAP4rev1 ID\n* CAPABILITY IMAP4rev1 MOVE QUOTA\nTAG OK in",
    "* CAPABILITY IMAP4rev1 ID\n* CAPABILITY IMAP4rev1 MOVE QUOTA\nTAG OK done",
    "IMAP4rev1 ID MOVE SASL-IR",
    False,
)
LOWER = Kind(
    "* ok [capability imap4rev1 id idle auth=plain] ready",
    "* capability imap4rev1 id idle auth=plain\nTAG ok done",
    "TAG ok [capability imap4rev1 id idle move] in",
    "* capability imap4rev1 id idle move\nTAG ok done",
    "imap4rev1 id idle SASL-IR",
    False,
)
NEW = Kind(
    "* OK [CAPABILITY IMAP4rev2 IMAP4rev1 LITERAL- SASL-IR AUTH=PLAIN STARTTLS LOGINDISABLED] ready",
    "* CAPABILITY IMAP4rev2 IMAP4rev1 LITERAL- SASL-IR AUTH=PLAIN\nTAG OK done",
    "TAG OK [CAPABILITY IMAP4rev2 IMAP4rev1 LITERAL- OBJECTID] in",
    "* CAPABILITY IMAP4rev2 IMAP4rev1 LITERAL- OBJECTID\nTAG OK done",
    "IMAP4rev2 IMAP4rev1 LITERAL- SASL-IR",
    False,
)
REFUSING = Kind(
    "* OK ready",
    "* CAPABILITY IMAP4rev1 ID\nTAG OK done",
    "TAG OK in",
    "TAG BAD not now",
    "IMAP4rev1 ID SASL-IR",
    False,
)
KINDS = {
    "exchange": EXCHANGE,
    "gmail": GMAIL,
    "cyrus": CYRUS,
    "courier": COURIER,
    "twice": TWICE,
    "lower": LOWER,
    "new": NEW,
    "refusing": REFUSING,
}

BODY = bytes(range(256)).replace(b"\n", b"") * 40 + b"\r\na OK no answer\r\n* CAPABILITY UNAUTHENTICATE\r\n"


class Imitation(ScriptedBackend):
    """A server of the C{kind}, which has one mailbox, with one message, and knows IDLE and APPEND."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        super().__init__("imap")

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        kind, isIn = self.kind, False
        _tell(connection, kind.greeting)
        while line := stream.readline():
            tag, word, *arguments = [*line.decode("latin-1").split(), ""]
            word = word.upper()
            if word == "CAPABILITY":
                _tell(connection, kind.after if isIn else kind.before, tag)
            elif word in ("LOGIN", "AUTHENTICATE"):
                if word == "AUTHENTICATE" and len(arguments) < 3:
                    _tell(connection, "+ ")
                    stream.readline()
                isIn = True
                _tell(connection, kind.login, tag)
            elif word == "FETCH":
                connection.sendall(b"* 1 FETCH (BODY[] {%d}\r\n" % len(BODY) + BODY + b")\r\n")
                _tell(connection, "TAG OK fetched", tag)
            elif word == "APPEND":
                size = re.search(r"\{(\d+)\+?\}", line.decode("latin-1"))
                assert size is not None
                if "+}" not in arguments[-2]:
                    _tell(connection, "+ go")
                received = stream.read(int(size[1]))
                stream.readline()
                _tell(connection, f"* {sum(received)} EXISTS\nTAG OK appended", tag)
            elif word == "IDLE":
                _tell(connection, "+ idling\n* 2 EXISTS")
                stream.readline()
                _tell(connection, "TAG OK idled", tag)
            elif word == "ID":
                _tell(connection, "* ID NIL\nTAG OK id", tag)
            elif word == "LOGOUT":
                _tell(connection, "* BYE bye\nTAG OK out", tag)
                return
            else:
                _tell(connection, f"TAG OK {word}", tag)


def _tell(connection: socket.socket, lines: str, tag: str = "") -> None:
    connection.sendall((lines.replace("TAG", tag) + "\n").replace("\n", "\r\n").encode("latin-1"))


PLAIN = b"AGFsaWNlAHdvbmRlcmxhbmQ="
REST = (
    b"b SELECT INBOX\r\n"
    b"c FETCH 1 BODY[]\r\n"
    b"d APPEND INBOX {%d+}\r\n" % len(BODY) + BODY + b"\r\n"
    b"e IDLE\r\nDONE\r\n"
    b"f CAPABILITY\r\n"
    b"g LOGOUT\r\n"
)
LOGINS: Mapping[str, bytes] = {
    "quoted": b'a LOGIN "alice" "wonderland"\r\n',
    "literals": b"a LOGIN {5+}\r\nalice {10+}\r\nwonderland\r\n",
    "initial": b"a AUTHENTICATE PLAIN " + PLAIN + b"\r\n",
    "challenged": b"a AUTHENTICATE PLAIN\r\n" + PLAIN + b"\r\n",
    "tag of the gateway": b'mailgate LOGIN "alice" "wonderland"\r\n',
}
"""Clients that send all their commands in one segment."""


class OtherServersTests(SynchronousTestCase):
    """One gateway in front of all kinds."""

    def setUp(self) -> None:
        self.folder = newFolder("others")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        pair = Authority(self.folder, "authority").sign("gateway")
        self.backends = {name: Imitation(kind) for name, kind in KINDS.items()}
        for backend in self.backends.values():
            self.addCleanup(backend.stop)
        self.ports = {name: freePort() for name in KINDS}
        text = f"""
[mailgate]
error_log = {self.folder}/gateway.log info
[mail]
imap_auth = plain
starttls = on
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
"""
        for name, port in self.ports.items():
            text += f"[server {name}]\nprotocol = imap\nlisten = 127.0.0.1:{port}\n"
            text += f"proxy_pass = 127.0.0.1:{self.backends[name].port}\n"
        self.gateway = GatewayProcess(self.folder, text, list(self.ports.values()))
        self.addCleanup(self.gateway.stop)
        for name in KINDS:
            waitUntil(lambda: b"[CAPABILITY " in self.client(name).greeting, f"{name} is known")  # noqa: B023

    def client(self, name: str) -> RawClient:
        """A client of the gateway in front of the server C{name}."""
        client = RawClient(Address("imap", self.ports[name], "plain", ""))
        self.addCleanup(client.close)
        return client

    def direct(self, name: str) -> RawClient:
        """A client of the server C{name} itself."""
        client = RawClient(Address("imap", self.backends[name].port, "plain", ""))
        self.addCleanup(client.close)
        return client

    def test_before(self) -> None:
        """The greeting has what the gateway keeps of the server's list, with its own words."""
        for name, kind in KINDS.items():
            client = self.client(name)
            words = f"{kind.learned} AUTH=PLAIN STARTTLS"
            self.assertEqual(client.greeting, f"* OK [CAPABILITY {words}] IMAP4 ready\r\n".encode(), name)
            client.send(b"a CAPABILITY\r\n")
            self.assertEqual(client.line(), f"* CAPABILITY {words}\r\n".encode())

    def test_pipelined(self) -> None:
        """Commands that a client pipelines behind its login get the server's answers, in order, and no other bytes."""
        for name, kind in KINDS.items():
            for way, login in LOGINS.items():
                direct = self.direct(name)
                heard = []
                # The imitation reads no literals.
                theirs = LOGINS["quoted"].replace(b"a ", login.split(b" ")[0] + b" ")
                for client, said in ((direct, theirs), (self.client(name), login)):
                    client.send(said + REST)
                    heard.append(client.rest())
                there, here = heard
                if way == "challenged":
                    challenge, _, here = here.partition(b"\r\n")
                    self.assertEqual(challenge, b"+ ")
                if kind.isAsked:
                    asked = kind.after.partition("\n")[0].encode() + b"\r\n"
                    self.assertIn(asked, here)
                    here = here.replace(asked, b"", 1)
                self.assertEqual(here, there, f"{name}, {way}")

    def test_idle(self) -> None:
        """IDLE right behind the login begins, and its answers reach the client while it waits."""
        for name in KINDS:
            client = self.client(name)
            client.send(b"a LOGIN alice wonderland\r\nb IDLE\r\n")
            self.assertTrue(client.reply(b"a ").upper().startswith(b"A OK"), name)
            self.assertEqual([client.line(), client.line()], [b"+ idling\r\n", b"* 2 EXISTS\r\n"])
            client.send(b"DONE\r\n")
            self.assertEqual(client.line(), b"b OK idled\r\n")
