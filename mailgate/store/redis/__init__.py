"""
The store in Valkey or Redis. The modules that need txredisapi, an extra, are imported in functions: it imports the
reactor.
"""
