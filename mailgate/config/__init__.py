"""
gateway.ini: its sections and options into settings (L{load}, L{parse}), and everything that is wrong with them at once.
Which options there are is declared by the settings classes beside the code that obeys them, not here.
"""

from mailgate.config.reading import GatewaySettings, authenticatorKind, knownDirectives, load, parse, read, readPID

__all__ = ["GatewaySettings", "authenticatorKind", "knownDirectives", "load", "parse", "read", "readPID"]
