# -*- test-case-name: mailgate.test.config.test_config -*-
"""
Makes L{ServerSettings} of C{[server NAME]} sections, and reports the mistakes of each server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from mailgate import registry
from mailgate.config.outside import Outside
from mailgate.config.pitfalls import isAlone, loops
from mailgate.config.sections import Section, SectionReader, made
from mailgate.config.serverchecks import EXCLUSIVE, WHO, faults, judgedBy
from mailgate.directives import Problem, ServerSettings, nearest
from mailgate.net.listen import ListenSettings
from mailgate.registry import PROTOCOLS, protocolAt

__all__ = ["ServerReader"]


class ServerReader:
    """
    Makes servers of the sections that a L{SectionReader} has read. It adds mistakes to the problems of that reader.

    @param file: the path of the configuration file.
    @param reader: the reader of its sections.
    @param mail: the section C{[mail]}, if there is one.
    @param groups: the settings of all sections without a name, by their class.
    @param outside: the authenticators from outside.
    """

    def __init__(
        self,
        file: str,
        reader: SectionReader,
        mail: Section | None,
        groups: Mapping[type, Any],
        outside: Outside,
    ) -> None:
        self._file = file
        self._reader = reader
        self._mail = mail
        self._outside = outside
        self._exclusive = (*EXCLUSIVE, *outside.exclusive)
        # Some limits of a server depend on the number of worker processes, which [mailgate] sets.
        self._shared = {group: given for group, given in groups.items() if group not in registry.SERVER.settings}
        self._supplied = frozenset(option for group in groups for option in getattr(group, "supplies", ()))

    def read(self, section: Section) -> ServerSettings | None:
        """
        Make the server of one section.

        @param section: the section.
        @return: the server; L{None} if its protocol or its addresses are not known.
        """
        general = {} if self._mail is None else self._mail.values
        inherited = {name: value for name, value in general.items() if not self._hidden(name, section)}
        values = {**inherited, **section.values}
        listening: ListenSettings = made(ListenSettings, values)
        addresses = tuple(evolve(address, ssl=address.ssl or listening.ssl) for address in listening.addresses)
        protocol = self._protocol(section, listening)
        if not addresses and "listen" not in section.written:
            self._reader.problem(
                section.title, "listen", "is missing; set a port or an address, such as 143 or 127.0.0.1:143"
            )
        if protocol is None or not addresses:
            return None
        own = {group: made(group, values) for group in section.kind.settings if group is not ListenSettings}
        server = ServerSettings(
            section.name,
            protocol,
            addresses,
            {**self._shared, **own},
            frozenset(values),
            self._file,
            frozenset(inherited).difference(section.written),
            self._reader.lines,
            supplied=self._supplied,
            ports=PROTOCOLS[protocol].backendPorts,
        )
        kind = self._outside.kindFor(server.name, server.given)
        server = server if kind is None else judgedBy(server, kind)
        self._judge(server, {name for name in self._written(section) if name not in values})
        return server

    def _written(self, section: Section) -> set[str]:
        return {*section.written, *(() if self._mail is None else self._mail.written)}

    def _judge(self, server: ServerSettings, spoilt: set[str]) -> None:
        """Report the mistakes of C{server}. Its options C{spoilt} could not be parsed."""
        # The mistakes in these options are reported already: do not report what follows from them.
        missingKind = spoilt.intersection(("proxy_pass", *self._exclusive))
        found: list[Problem] = []
        for problem in (*faults(server, self._exclusive), *(loops(server) if isAlone(server) else ())):
            if problem.option not in spoilt and not (missingKind and problem.option == WHO):
                found.append(problem)
        # Each server that inherits a mistake from [mail] finds it. Report it once.
        self._reader.problems.extend(problem for problem in found if problem not in self._reader.problems)

    def _protocol(self, section: Section, listening: ListenSettings) -> str | None:
        """The configured protocol, or else the protocol of the first well-known port."""
        report = self._reader.problem
        known = ", ".join(PROTOCOLS)
        if listening.protocol is not None:
            if listening.protocol in PROTOCOLS:
                return listening.protocol
            hint = nearest(listening.protocol, list(PROTOCOLS))
            report(section.title, "protocol", f"must be one of {known}{hint}", listening.protocol)
            return None
        usual = protocolAt(listening.addresses)
        if usual is None and listening.addresses and "protocol" not in section.written:
            report(section.title, "protocol", f"is missing, as no port of listen implies it; set one of {known}")
        return usual

    def _hidden(self, option: str, section: Section) -> bool:
        return option in self._exclusive and any(other in section.written for other in self._exclusive)
