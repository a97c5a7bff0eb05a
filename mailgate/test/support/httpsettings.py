"""
Settings of the HTTP service that judges logins, for tests.
"""

from __future__ import annotations

from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings, directives

__all__ = ["read", "server", "settings"]


def read(option, value):
    """C{value} as the parser of C{option} reads it."""
    (found,) = [each for each in directives(HTTPSettings) if each.name == option]
    return found.parse(value, "/etc/mailgate")


def settings(urls="http://127.0.0.1:9000/auth", **others):
    """Settings with C{urls}, one a line, and a minute for an answer."""
    return HTTPSettings(urls=read("auth_http", urls), **{"timeout": 60.0, **others})


def server(group, *others):
    """A server whose settings are C{group} and C{others}."""
    return ServerSettings("imap", "imap", (), {HTTPSettings: group, **{type(other): other for other in others}})
