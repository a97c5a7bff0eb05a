"""
gateway.ini: its sections and options into settings (L{load}, L{parse}), and everything that is wrong with them at once.
Which options there are is declared by the settings classes beside the code that obeys them, not here.
"""

from mailgate.config.reading import load, parse, read, readOne
from mailgate.config.sections import knownDirectives
from mailgate.config.serverchecks import authenticatorKind
from mailgate.directives import GatewaySettings

__all__ = ["GatewaySettings", "authenticatorKind", "knownDirectives", "load", "parse", "read", "readOne"]
