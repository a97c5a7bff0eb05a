"""
Distributions as pip installs them: modules, and metadata with entry points.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from mailgate.config.entrypoints import GROUP

__all__ = ["KIND", "writeDistribution"]

KIND = """
from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen
from twisted.internet.defer import succeed
from zope.interface import implementer

from mailgate.directives import directive, flag, hostPort, text
from mailgate.directives.needs import given
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.login import Backend, Denial, Method, Route, Trouble


def place(value, folder):
    return hostPort(value)


@frozen
class Settings:
    needs: ClassVar = (given("scratch_auth"),)

    backend: tuple = directive("scratch_auth", place, None)
    password: str = directive("scratch_password", text, "", secret=True)
    strict: bool = directive("scratch_strict", flag, False)

    def problems(self, server):
        if self.backend is not None and not self.password:
            yield server.problem("scratch_password", "is missing")


@implementer(IAuthenticator)
class Scratch:
    def __init__(self, settings):
        self.settings = settings
        self.closed = 0

    def authenticate(self, request):
        given = request.credentials
        if given.secret != self.settings.password.encode():
            return succeed(Denial(Trouble.DENIED))
        host, port = self.settings.backend
        return succeed(Route((Backend(host, port),), given.user, given.secret))

    def close(self):
        self.closed += 1


def build(server, default, reactor, journal):
    return Scratch(server[Settings])


SCRATCH = AuthenticatorKind(
    name="scratch",
    directive="scratch_auth",
    settings=Settings,
    methods=frozenset({Method.PLAIN}),
    build=build,
)
"""
"""A module with an authenticator, C{SCRATCH}: all users have the same password and the same backend."""


def writeDistribution(folder: str, name: str, entries: Mapping[str, str], modules: Mapping[str, str] = {}) -> None:
    """
    Install version 1.0 of the distribution C{name} in C{folder}, which must be on Python's path. C{entries} are the
    values of entry points for authenticators by name, C{modules} the sources of modules by name.
    """
    metadata = os.path.join(folder, f"{name}-1.0.dist-info")
    os.makedirs(metadata)
    points = "".join(f"{entry} = {value}\n" for entry, value in entries.items())
    files = {
        os.path.join(metadata, "METADATA"): f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        os.path.join(metadata, "entry_points.txt"): f"[{GROUP}]\n{points}",
        **{os.path.join(folder, f"{module}.py"): source for module, source in modules.items()},
    }
    for path, content in files.items():
        with open(path, "w", encoding="utf-8") as opened:
            opened.write(content)
