# -*- test-case-name: mailgate.test.config.test_config -*-
"""
C{[server NAME]} sections as L{ServerSettings}, with everything that is wrong with one of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from mailgate import registry
from mailgate.config.outside import Outside
from mailgate.config.pitfalls import loops
from mailgate.config.sections import Section, SectionReader, made
from mailgate.config.serverchecks import EXCLUSIVE, WHO, faults, judgedBy
from mailgate.directives import Problem, ServerSettings, nearest
from mailgate.net.listen import ListenSettings
from mailgate.registry import PROTOCOLS, protocolAt

__all__ = ["ServerReader"]


class ServerReader:
    """
    Makes the servers of C{file} out of the sections that C{reader} has read, and adds what is wrong with them to its
    problems.

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
        # What a server takes of the machine depends on how many processes take as much.
        self._shared = {group: given for group, given in groups.items() if group not in registry.SERVER.settings}
        self._supplied = frozenset(option for group in groups for option in getattr(group, "supplies", ()))

    def read(self, section: Section) -> ServerSettings | None:
        """The server of C{section}; L{None} where it is not known what it speaks, or where."""
        general = {} if self._mail is None else self._mail.values
        inherited = {name: value for name, value in general.items() if not self._hidden(name, section)}
        values = {**inherited, **section.values}
        listening: ListenSettings = made(ListenSettings, values)
        addresses = tuple(evolve(address, ssl=address.ssl or listening.ssl) for address in listening.addresses)
        protocol = self._protocol(section, listening)
        if not addresses and "listen" not in section.written:
            self._reader.problem(section.title, "listen", "is missing")
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
        """Look what is wrong with C{server}, of whose options C{spoilt} have no value because of a mistake."""
        # What could not be read has been told of; what that leads to is no news.
        missingKind = spoilt.intersection(("proxy_pass", *self._exclusive))
        told: list[Problem] = []
        for problem in (*faults(server, self._exclusive), *loops(server)):
            if problem.option not in spoilt and not (missingKind and problem.option == WHO):
                told.append(problem)
        # What is wrong in [mail] is so for each server that has it from there.
        self._reader.problems.extend(problem for problem in told if problem not in self._reader.problems)

    def _protocol(self, section: Section, listening: ListenSettings) -> str | None:
        """The protocol that is given, or the one of the first well-known port."""
        tell = self._reader.problem
        if listening.protocol is not None:
            if listening.protocol in PROTOCOLS:
                return listening.protocol
            known = f"they are {', '.join(PROTOCOLS)}{nearest(listening.protocol, list(PROTOCOLS))}"
            tell(section.title, "protocol", f"is no known protocol, {known}", listening.protocol)
            return None
        usual = protocolAt(listening.addresses)
        if usual is None and listening.addresses and "protocol" not in section.written:
            tell(section.title, "protocol", f"is missing, and no port tells it: {', '.join(PROTOCOLS)}")
        return usual

    def _hidden(self, option: str, section: Section) -> bool:
        return option in self._exclusive and any(other in section.written for other in self._exclusive)
