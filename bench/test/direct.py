# -*- test-case-name: bench.test.test_measuring -*-
"""
No proxy: clients reach the backend directly, so that measuring can be tested without a proxy.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import Children
from bench.proxies import Proxy, Running, Site

__all__ = ["Direct", "entered", "services"]

T = TypeVar("T")


class Direct(Proxy):
    """Nothing between client and backend. It has no process, so its CPU time and memory are 0."""

    asksAuth = False

    def __init__(self, name: str) -> None:
        self.name = name

    def find(self) -> str | None:
        return None

    def version(self) -> str:
        return "Direct 1, OpenSSL 0"

    def commands(self, folder: str, site: Site, plain: int, tls: int) -> Sequence[Sequence[str]]:
        self.next = ("127.0.0.1", site.backendPort)
        return []

    def scaled(self, workers: int, site: Site) -> Proxy | None:
        return self

    def reload(self, running: Running, commands: Sequence[Sequence[str]]) -> None:
        running.plain = self.next

    def start(self, site: Site, children: Children) -> Running:
        address = ("127.0.0.1", site.backendPort)
        return Running(self, children, [], address, address)


def entered(case: SynchronousTestCase, context: AbstractContextManager[T]) -> T:
    """Enter a context until the end of the test C{case}. (unittest's C{enterContext} is of Python 3.11.)"""
    value = context.__enter__()
    case.addCleanup(context.__exit__, None, None, None)
    return value


@contextmanager
def services(openFiles: int = 1024, capabilities: str = "", backends: int = 1) -> Iterator[tuple[Site, Children]]:
    """
    A running backend and a running authentication service, as of L{bench.program.openSite}; the site has no
    certificate.
    """
    with tempfile.TemporaryDirectory() as folder, Children(folder) as children:
        backend, auth = (socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(2))
        with backend, auth:
            ports = backend.getsockname()[1], auth.getsockname()[1]
            greeted = [capabilities] if capabilities else []
            children.startModule("bench.backend", str(backend.fileno()), *greeted, descriptors=[backend.fileno()])
            descriptor = auth.fileno()
            children.startModule("bench.authservice", str(descriptor), str(ports[0]), descriptors=[descriptor])
        yield Site(folder, *ports, "", "", "", openFiles), children
