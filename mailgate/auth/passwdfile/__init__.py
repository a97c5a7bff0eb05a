"""
C{auth_file}: accounts in Dovecot's passwd-file format, and hashes of their passwords.
"""
