"""
The vocabulary of gateway.ini: directives, parsers of values, problems, sections. Settings classes declare their options
with it. This package does not know which options exist.
"""

from mailgate.directives.addresses import LONGEST_SOCKET_PATH, ListenAddress, SocketOptions, hostPort, isHostName
from mailgate.directives.declare import Directive, directive, directives
from mailgate.directives.problems import ConfigurationError, Problem, nearest
from mailgate.directives.sections import SectionKind
from mailgate.directives.settings import GatewaySettings, SectionSettings, ServerSettings
from mailgate.directives.values import (
    LEARN,
    Parser,
    bufferSize,
    capabilities,
    deadline,
    exactFlag,
    flag,
    lines,
    longSeconds,
    number,
    oneOf,
    path,
    paths,
    repeatedWords,
    seconds,
    size,
    text,
    word,
    words,
)

__all__ = [
    "LEARN",
    "LONGEST_SOCKET_PATH",
    "ConfigurationError",
    "Directive",
    "GatewaySettings",
    "ListenAddress",
    "Parser",
    "Problem",
    "SectionKind",
    "SectionSettings",
    "ServerSettings",
    "SocketOptions",
    "bufferSize",
    "capabilities",
    "deadline",
    "directive",
    "directives",
    "exactFlag",
    "flag",
    "hostPort",
    "isHostName",
    "lines",
    "longSeconds",
    "nearest",
    "number",
    "oneOf",
    "path",
    "paths",
    "repeatedWords",
    "seconds",
    "size",
    "text",
    "word",
    "words",
]
