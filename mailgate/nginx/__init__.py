"""
Converts an nginx.conf to a gateway.ini: reading, mapping, writing. A running gateway does not use this package.
"""
