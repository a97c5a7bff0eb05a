"""
Addresses, host names and sockets: C{listen}, name servers, endpoints of backends and services, and the PROXY protocol.
The package does not depend on the mail protocols.
"""
