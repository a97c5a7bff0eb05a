# -*- test-case-name: mailgate.test.differential -*-
"""
Random conversations: the same for the same seed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import Any

from mailgate.test.differential.choices import AUTHS, NAMES, OPTIONS, OWN_OPTIONS, PASSWORDS, PROTOCOLS, PROXY_HEADERS
from mailgate.test.differential.generateservers import backends, isAccepting, service
from mailgate.test.differential.script import Script

__all__ = ["scripts"]


def b64(text: str) -> str:
    """Return the text in base64."""
    return base64.b64encode(text.encode("latin-1")).decode()


def scripts(seed: int, count: int, prefix: str = "") -> Iterator[Script]:
    """
    Yield conversations.

    @param seed: the seed.
    @param count: how many.
    @param prefix: the beginning of their names.
    """
    for number in range(count):
        yield _Maker(Random(f"{seed} {number}"), f"{prefix}{seed}-{number}").script()


class _Maker:
    """
    Makes one conversation.

    @param random: the source of all choices.
    @param name: the name of the conversation.
    """

    def __init__(self, random: Random, name: str) -> None:
        self._random = random
        self._name = name
        self._protocol = random.choice(PROTOCOLS)
        self._steps: list[list[Any]] = []
        self._tag = 0

    def _odds(self, chance: float) -> bool:
        return self._random.random() < chance

    def script(self) -> Script:
        random = self._random
        protocol = self._protocol
        self._auth = random.choice(AUTHS[protocol])
        options = [f"{protocol}_auth = {self._auth}"]
        tls = random.choice(("", "", "", "starttls = on", "starttls = only", "ssl"))
        if tls.startswith("starttls"):
            options.append(tls)
        self._tls = tls
        listen = ["ssl"] if tls == "ssl" else []
        self._header = ""
        if self._odds(0.12):
            listen.append("proxy_protocol")
            self._header = random.choice(PROXY_HEADERS)
            if self._odds(0.5):
                options.append("set_real_ip_from = 127.0.0.0/8")
        for choices in (*OPTIONS, *OWN_OPTIONS[protocol]):
            # Most conversations have few options.
            choice = random.choice(choices) if self._odds(0.35) else ""
            if choice:
                options.append(choice)
        chosen = "\n".join(options)
        if "xclient = on" in chosen and "proxy_protocol = " in chosen:
            options.remove("xclient = on")
        if "none" in self._auth and "proxy_auth" in chosen:
            options = [option for option in options if not option.startswith("proxy_auth")]
        isPassed = self._odds(0.08) and not any(f"auth_{word}" in chosen for word in ("cache", "http"))
        isPassed = isPassed and self._auth in ("plain", "plain login") and "sasl" not in chosen
        made = backends(random, protocol)
        if isPassed:
            options.append("proxy_pass = 127.0.0.1:<backend1>")
            options = [option for option in options if not option.startswith("max_auth_failures")]
            answers: list[list[str]] = []
        else:
            options.append("auth_http = http://127.0.0.1:<service>/auth?key=1")
            answers = service(random, protocol, len(made))
        if any(backend.tls for backend in made):
            options.append("proxy_ssl = " + ("on" if made[0].tls == "on" else "starttls"))
            options.append(random.choice(("proxy_ssl_verify = off", "proxy_ssl_trusted_certificate = <authority>")))
        self._isLikely = isAccepting(answers)
        self._converse()
        for again in range(random.choice((0, 0, 0, 1, 2))):
            self._converse(isResumed=again == 0)
        return Script(
            self._name,
            protocol,
            self._steps,
            answers,
            made,
            options,
            " ".join(listen),
            random.choice(("epoll", "epoll", "epoll", "reactor")),
            random.choice(("info", "info", "debug")),
        )

    def _converse(self, isResumed: bool = False) -> None:
        random = self._random
        self._steps.append(["connect"])
        if self._odds(0.03):
            self._steps.append(["wait", random.choice((1, 7, 61))])
        if self._header:
            self._send(self._header)
        if self._tls == "ssl":
            self._handshake(isResumed)
        elif self._tls and self._odds(0.85):
            if self._protocol == "smtp":
                self._send("EHLO client.example\r\n")
            self._say("STLS" if self._protocol == "pop3" else "STARTTLS")
            if self._odds(0.93):
                self._handshake(isResumed)
        pieces = list(self._dialogue())
        if self._odds(0.05):
            # All at once.
            pieces = ["".join(pieces)]
        for piece in pieces:
            self._send(piece)
            if self._odds(0.02):
                self._leave()
                return
        if self._odds(0.3):
            self._steps.append(["wait", random.choice((0.1, 1, 1, 3, 5, 61))])
        if self._odds(0.75):
            self._relay()
        if self._odds(0.7):
            self._leave()

    def _handshake(self, isResumed: bool) -> None:
        if self._odds(0.03):
            self._send("EHLO in.the.clear\r\n")
            return
        self._steps.append(["tls", "resume"] if isResumed else ["tls"])

    def _say(self, line: str) -> None:
        self._send(self._line(line))

    def _line(self, line: str) -> str:
        if self._protocol == "imap":
            self._tag += 1
            line = f"a{self._tag} {line}"
        return line + ("\n" if self._odds(0.04) else "\r\n")

    def _send(self, data: str) -> None:
        """Send data, in one segment or several."""
        cut = self._random.random()
        if cut < 0.8 or len(data) < 2:
            self._steps.append(["send", data])
        elif cut < 0.83 and len(data) < 60:
            self._steps += [["send", character] for character in data]
        else:
            places = sorted(
                self._random.sample(range(1, len(data)), min(len(data) - 1, self._random.choice((1, 1, 2, 3))))
            )
            starts = [0, *places, len(data)]
            self._steps += [["send", data[a:b]] for a, b in pairwise(starts)]

    def _dialogue(self) -> Iterator[str]:
        """Yield what the client says until it has logged in, in segments."""
        if self._protocol == "smtp" and self._odds(0.95):
            yield self._line(
                self._random.choice(("EHLO client.example", "EHLO [192.0.2.1]", "HELO client", "EHLO", "ehlo x y"))
            )
        for _ in range(self._random.choice((0, 0, 0, 1, 2, 6))):
            yield self._noise()
        for attempt in range(self._random.choice((1, 1, 1, 2, 3))):
            if attempt and self._odds(0.7):
                self._steps.append(["wait", self._random.choice((1, 3, 10))])
            yield from self._login()
        if self._odds(0.1):
            yield self._noise()

    def _noise(self) -> str:
        random = self._random
        common = (
            "NOOP",
            "XYZZY",
            "",
            "NOOP x y z w",
            "x" * random.choice((100, 200, 5000)),
            "nul \0 inside",
            "eight \xff bits",
            "esc \x1b[2J",
            "STARTTLS",
            "AUTH",
            "LOGIN",
        )
        own = {
            "imap": (
                "CAPABILITY",
                'ID ("name" "client" "x-proxy-ttl" "3")',
                "ID NIL",
                "SELECT INBOX",
                "IDLE",
                "LOGIN {5",
                "LOGIN {99999}",
                "NOOP {3+}\r\nabc",
                "LOGOUT now",
                'ID ("x-originating-ip" "1.2.3.4" "a" NIL)',
                "AUTHENTICATE",
                "AUTHENTICATE X",
                "LOGIN a b c d",
                "ENABLE UTF8=ACCEPT",
            ),
            "pop3": (
                "CAPA",
                "AUTH",
                "STAT",
                "USER",
                "PASS x",
                "APOP",
                "APOP joe",
                "NOOP x-proxy-ttl=1",
                "RSET",
                "XCLIENT ADDR=1.2.3.4",
                "USER a b c",
            ),
            "smtp": (
                "RSET",
                "HELP",
                "VRFY joe",
                "EXPN joe",
                "MAIL FROM:<a@b>",
                "RCPT TO:<c@d>",
                "DATA",
                "BDAT 3 LAST\r\nabc",
                "EHLO again",
                "XCLIENT ADDR=1.2.3.4",
                "NOOP x-proxy-ttl=1",
                "AUTH X",
                "AUTH PLAIN " + b64("x"),
                "XFORWARD ADDR=1.2.3.4",
                "MAIL FROM:<\xe9>",
                "HELO",
            ),
        }[self._protocol]
        if self._odds(0.02):
            return random.choice((" ", "\r", "\r\n", "\r\r\n", "+ ", "* OK\r\n", "a\r\n"))
        return self._line(random.choice(random.choice((common, own))))

    def _login(self) -> Iterator[str]:
        random = self._random
        user, password = random.choice(NAMES), random.choice(PASSWORDS)
        if self._odds(0.6):
            user, password = "joe", "sesame"
        ways = [self._plainly] * 3 + [self._sasl]
        if any(word in self._auth for word in ("cram", "oauth", "external", "apop")):
            ways.append(self._otherwise)
        if self._protocol == "smtp" and "none" in self._auth:
            ways += [self._none] * 3
        yield from random.choice(ways)(user, password)

    def _none(self, user: str, password: str) -> Iterator[str]:
        lines = [
            "MAIL FROM:<me@example.org> SIZE=5",
            f"RCPT TO:<{user.strip()}@example.org>",
            "RCPT TO:<second@x>",
            "DATA",
        ]
        if self._odds(0.4):
            yield "".join(self._line(line) for line in lines[: self._random.choice((2, 3, 4))])
        else:
            for line in lines:
                yield self._line(line)
        if self._odds(0.5):
            yield "Subject: x\r\n\r\nbody\r\n.\r\n"

    def _plainly(self, user: str, password: str) -> Iterator[str]:
        early = self._line("NOOP") if self._odds(0.15) else ""
        if self._protocol == "imap":
            yield from self._imapLogin(user, password, early)
        elif self._protocol == "pop3":
            if self._odds(0.2):
                yield self._line(f"USER {user}") + self._line(f"PASS {password}") + early
            else:
                yield self._line(f"USER {user}")
                yield self._line(f"PASS {password}") + early
        else:
            yield self._line("AUTH PLAIN " + b64(f"\0{user}\0{password}")) + early

    def _imapLogin(self, user: str, password: str, early: str) -> Iterator[str]:
        self._tag += 1
        segments = [f"a{self._tag} LOGIN "]
        for text in (user, password):
            kind = self._random.choice(("atom", "quoted", "literal", "literal+"))
            if kind == "atom":
                segments[-1] += text
            elif kind == "quoted":
                segments[-1] += '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
            else:
                size = len(text) + self._random.choice((0, 0, 0, 0, 0, 1, -1))
                segments[-1] += f"{{{max(size, 0)}{'+' * (kind == 'literal+')}}}\r\n"
                segments.append(text)
            segments[-1] += " "
        segments[-1] = segments[-1][:-1] + "\r\n" + early
        if self._odds(0.2):
            segments = ["".join(segments)]
        yield from segments

    def _sasl(self, user: str, password: str) -> Iterator[str]:
        random = self._random
        word = "AUTHENTICATE" if self._protocol == "imap" else "AUTH"
        isPlain = self._odds(0.65)
        authzid = random.choice(("", "", "", "", user, "other"))
        answers = [b64(f"{authzid}\0{user}\0{password}")] if isPlain else [b64(user), b64(password)]
        odd = random.random()
        if odd < 0.05:
            answers[-1] = "*"
        elif odd < 0.1:
            answers[-1] = random.choice(
                ("%%%", "=", "A", "AAAA=", b64("no nul"), b64("a\0b\0c\0d"), "", " " + answers[-1])
            )
        name = "PLAIN" if isPlain else "LOGIN"
        first = self._line(f"{word} {name}")
        if self._odds(0.4):
            first = self._line(f"{word} {random.choice((name, name.lower()))} {answers.pop(0) or '='}")
        segments = [first, *(answer + "\r\n" for answer in answers)]
        if self._odds(0.15):
            segments = ["".join(segments) + self._line("NOOP")]
        yield from segments

    def _otherwise(self, user: str, password: str) -> Iterator[str]:
        random = self._random
        word = "AUTHENTICATE" if self._protocol == "imap" else "AUTH"
        digest = "0123456789abcdef" * 2
        ways: dict[str, list[str]] = {}
        if "cram" in self._auth:
            ways["CRAM-MD5"] = [b64(f"{user} {digest}"), b64(user), b64(f"{user} xyz"), "*"]
        if "external" in self._auth:
            ways["EXTERNAL"] = [b64(user), "=", "", "*"]
        if "oauth" in self._auth:
            ways["XOAUTH2"] = [b64(f"user={user}\1auth=Bearer {password}\1\1"), b64("user=x"), "*"]
            ways["OAUTHBEARER"] = [
                b64(f"n,a={user},\1host=h\1port=143\1auth=Bearer {password}\1\1"),
                b64("n,,\1\1"),
                "*",
            ]
        if "apop" in self._auth:
            ways["APOP"] = [f"{user} {digest}", user, f"{user} xyz"]
        name = random.choice(sorted(ways))
        answer = random.choice((ways[name][0], ways[name][0], random.choice(ways[name])))
        if name == "APOP":
            yield self._line(f"APOP {answer}")
        elif name != "CRAM-MD5" and self._odds(0.5):
            yield self._line(f"{word} {name} {answer}")
        else:
            yield self._line(f"{word} {name}")
            yield answer + "\r\n"
        if "OAUTH" in name and not self._isLikely:
            yield random.choice(("AQ==\r\n", "\r\n", "*\r\n"))

    def _relay(self) -> None:
        random = self._random
        for _ in range(random.choice((1, 2, 3, 4))):
            what = random.random()
            if what < 0.45:
                self._say(random.choice(("NOOP", "SELECT INBOX", "RETR 1", "MAIL FROM:<a@b>", "\0\xff binary")))
            elif what < 0.65:
                self._steps.append(
                    ["backend", 1, "send", random.choice(("* 5 EXISTS\r\n", "x", "line\r\n" * 3, "\0\xff"))]
                )
            elif what < 0.72:
                self._steps.append(["blob", random.choice((5000, 20000, 70000, 300000))])
            elif what < 0.79:
                self._steps.append(["backend", 1, "blob", random.choice((5000, 20000, 70000, 300000))])
            elif what < 0.83:
                size = random.choice((70000, 3000000))
                self._steps += [["deaf"], ["backend", 1, "blob", size], ["send", "z NOOP\r\n"], ["hear"]]
            elif what < 0.87:
                size = random.choice((70000, 3000000))
                self._steps += [
                    ["backend", 1, "deaf"],
                    ["blob", size],
                    ["backend", 1, "send", "* x\r\n"],
                    ["backend", 1, "hear"],
                ]
            else:
                self._steps.append(["wait", random.choice((1, 20, 40))])

    def _leave(self) -> None:
        random = self._random
        way = random.random()
        if way < 0.4:
            self._say("LOGOUT" if self._protocol == "imap" else "QUIT")
            if self._odds(0.5):
                self._steps.append([random.choice(("half", "close", "reset"))])
        elif way < 0.55:
            self._steps.append(["half"])
            if self._odds(0.5):
                self._steps += [
                    ["backend", 1, "send", "late\r\n"],
                    ["backend", 1, random.choice(("half", "close", "reset"))],
                ]
        elif way < 0.65:
            self._steps.append(["close"])
        elif way < 0.75:
            self._steps.append(["reset"])
        else:
            self._steps.append(["backend", 1, random.choice(("half", "close", "reset"))])
            if self._odds(0.5):
                self._say("NOOP")
            self._steps.append([random.choice(("half", "close", "reset"))])
