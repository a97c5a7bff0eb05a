"""
Settings of C{auth_http}, for tests.
"""

from __future__ import annotations

from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings, directives

__all__ = ["read", "server", "settings"]


def read(option, value):
    """Parse C{value} as the option C{option}."""
    (found,) = [each for each in directives(HTTPSettings) if each.name == option]
    return found.parse(value, "/etc/mailgate")


def settings(urls="http://127.0.0.1:9000/auth", **others):
    """Return settings with C{urls}, one per line, and a time-out of one minute."""
    return HTTPSettings(urls=read("auth_http", urls), **{"timeout": 60.0, **others})


def server(group, *others):
    """Return a server with the settings C{group} and C{others}."""
    return ServerSettings("imap", "imap", (), {HTTPSettings: group, **{type(other): other for other in others}})
