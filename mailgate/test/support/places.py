"""
Places of backends for connectors that tests make.
"""

from __future__ import annotations

from typing import Any

from mailgate.backend.places import Places
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["placesFor"]


def placesFor(reactor: Any, upstreams: Upstreams | None = None, **settings: Any) -> Places:
    """Places whose connections C{reactor} makes, with TLS by C{settings}, fields of L{BackendTLSSettings}."""
    return Places(BackendTLSSettings(**settings), upstreams, BackendContexts, reactor)
