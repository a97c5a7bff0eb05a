# -*- test-case-name: mailgate.test.test_login -*-
"""
The values of a login: what a client sends (L{LoginRequest}), and the two answers of an authenticator (L{Route} and
L{Denial}).

All of them but L{Asked} are immutable. They can be compared, and their C{repr} leaves out secrets.
"""

from __future__ import annotations

from mailgate.login.answer import Denial, Refusal, Route, RouteOptions, TLSOptions, Trouble
from mailgate.login.asked import Asked
from mailgate.login.backend import Backend, BackendGroup, BackendTLS, Destination
from mailgate.login.client import Client, ClientCertificate, Findings, ProxiedAddresses, TLSDetails, TLSState
from mailgate.login.request import Credentials, Envelope, LoginRequest, Method
from mailgate.login.scram import ScramSecret
from mailgate.login.texts import fitForWire, fitText, sieveCode

__all__ = [
    "Asked",
    "Backend",
    "BackendGroup",
    "BackendTLS",
    "Client",
    "ClientCertificate",
    "Credentials",
    "Denial",
    "Destination",
    "Envelope",
    "Findings",
    "LoginRequest",
    "Method",
    "ProxiedAddresses",
    "Refusal",
    "Route",
    "RouteOptions",
    "ScramSecret",
    "TLSDetails",
    "TLSOptions",
    "TLSState",
    "Trouble",
    "fitForWire",
    "fitText",
    "sieveCode",
]
