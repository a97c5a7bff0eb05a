# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx and mailgate side by side: each with the same configuration, an authentication service and backends of its own,
and the same conversations.
"""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from mailgate.nginx.importer import importNginx
from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.conversation import Conversation
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.nginx import NginxProcess, writeConfiguration
from mailgate.test.integration.scripted import ScriptedAuth, ScriptedBackend
from mailgate.test.integration.scriptedclient import ScriptedClient, contexts
from mailgate.test.integration.servers import PROTOCOLS, SERVERS, mailBlock, protocolOf
from mailgate.test.integration.transcript import Normal, Transcript, lines

__all__ = ["Pair"]


ELSEWHERE = ("pid",)
"""The configuration around the block C{mail}, which mailgate does not use."""


class Side:
    """
    A proxy, its authentication service, its backends, and the ports of its servers. C{configuration} is the path of
    nginx.conf.
    """

    proxy: NginxProcess | GatewayProcess

    def __init__(self, authority: Authority, kinds: Mapping[str, ssl.SSLContext]) -> None:
        self.folder = newFolder("side")
        self._kinds = kinds
        self.auth = ScriptedAuth()
        self.backends = {protocol: ScriptedBackend(protocol) for protocol in PROTOCOLS}
        self.ports = {name: freePort() for name in SERVERS}
        self._nobody = freePort()
        pair = authority.sign("gateway")
        mail = mailBlock(
            self.ports,
            folder=self.folder,
            auth=self.auth.port,
            certificate=pair.certificate,
            key=pair.key,
            authority=authority.path,
        )
        self.configuration = writeConfiguration(self.folder, mail)

    @property
    def listening(self) -> list[int]:
        """The ports of the proxy's listeners."""
        return [port for name, port in self.ports.items() if "unix:" not in SERVERS[name]]

    def play(self, conversation: Conversation) -> Transcript:
        """Run C{conversation}; return the transcript."""
        protocol = protocolOf(conversation.server)
        backend = self.backends[protocol]
        self.auth.ports = {"PORT": backend.port, "NOBODY": self._nobody}
        self.auth.script(conversation.auth)
        backend.script(conversation.backend)
        port, directives = self.ports[conversation.server], SERVERS[conversation.server]
        address = f"{self.folder}/{conversation.server}" if "unix:" in directives else port
        client = ScriptedClient(protocol, address, self._kinds[conversation.kind])
        client.begin(conversation.first, withTLS=" ssl;" in directives)
        client.follow(conversation.steps)
        client.finish()
        backend.settle()
        normal = Normal({port: "LISTEN", client.port: "CLIENT", backend.port: "BACKEND"})
        return Transcript(
            "\n".join(line for mark, data in client.said for line in lines(normal(data), mark) or [mark]),
            "\n".join(line for head in self.auth.heard for line in lines(normal(bytes(head)), "")),
            "\n".join(line for heard in backend.heard for line in ["connection", *lines(normal(bytes(heard)), "")]),
        )

    def playAll(self, conversations: Sequence[Conversation]) -> list[Transcript]:
        """Run C{conversations} one after the other."""
        return [self.play(conversation) for conversation in conversations]

    def stop(self) -> None:
        """Stop everything."""
        self.proxy.stop()
        self.auth.stop()
        for backend in self.backends.values():
            backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pair:
    """Both proxies. mailgate uses the imported nginx.conf."""

    def __init__(self) -> None:
        self._folder = newFolder("authority")
        authority = Authority(self._folder, "authority")
        kinds = contexts(authority)
        self.nginx, self.mailgate = Side(authority, kinds), Side(authority, kinds)
        self.nginx.proxy = NginxProcess(self.nginx.configuration, self.nginx.listening)
        try:
            ini = _ini(self.mailgate.configuration)
            self.mailgate.proxy = GatewayProcess(self.mailgate.folder, ini, self.mailgate.listening)
        except BaseException:
            self.nginx.stop()
            raise

    def play(self, conversations: Sequence[Conversation]) -> Iterator[tuple[Conversation, Transcript, Transcript]]:
        """Run C{conversations} with nginx and, at the same time, with mailgate."""
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(side.playAll, conversations) for side in (self.nginx, self.mailgate)]
            yield from zip(conversations, *(one.result() for one in both), strict=True)

    def stop(self) -> None:
        """Stop both."""
        self.nginx.stop()
        self.mailgate.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _ini(configuration: str) -> str:
    """
    The text that C{mailgate import-nginx} makes of the file C{configuration}.

    @raise AssertionError: a directive of mail is not carried over.
    """
    imported = importNginx(configuration)
    lost = [str(remark) for remark in imported.remarks if "not needed" not in str(remark)]
    if lost != [line for line in lost if any(f": {name}: " in line for name in ELSEWHERE)]:
        raise AssertionError("\n".join(lost))
    return imported.text
