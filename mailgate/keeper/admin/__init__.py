"""
The admin server: what operators see and order over HTTP, on a unix socket or over TCP, and the port for metrics.
"""
