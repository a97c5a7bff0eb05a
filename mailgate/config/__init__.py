"""
Reads gateway.ini into settings (L{load}, L{parse}), and reports all mistakes at once. The settings classes declare the
options; each class is beside the code that uses it.
"""

from mailgate.config.reading import load, parse, read, readOne
from mailgate.config.sections import knownDirectives
from mailgate.config.serverchecks import authenticatorKind
from mailgate.directives import GatewaySettings

__all__ = ["GatewaySettings", "authenticatorKind", "knownDirectives", "load", "parse", "read", "readOne"]
