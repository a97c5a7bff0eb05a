"""
nginx.conf as a gateway.ini: reading, mapping, writing. Nothing here runs in a gateway.
"""
