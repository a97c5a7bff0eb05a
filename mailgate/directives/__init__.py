"""
The vocabulary of gateway.ini: values, options, what is wrong with them. Settings classes declare with it what they
read. Which options exist is not known here.
"""

from mailgate.directives.addresses import LONGEST_SOCKET_PATH, ListenAddress, SocketOptions, hostPort, isHostName
from mailgate.directives.declare import Directive, directive, directives
from mailgate.directives.problems import ConfigurationError, Problem, nearest
from mailgate.directives.sections import SectionKind
from mailgate.directives.settings import GatewaySettings, SectionSettings, ServerSettings
from mailgate.directives.values import (
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
