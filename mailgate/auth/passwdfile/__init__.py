"""
C{auth_file}: accounts in a file in Dovecot's passwd-file format, with hashes of their passwords.
"""
