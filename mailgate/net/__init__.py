"""
Addresses, names and sockets: C{listen} and its sockets, name servers, endpoints of backends and services, the PROXY
protocol. Nothing here knows what is said on a connection.
"""
