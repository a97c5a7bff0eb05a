"""
The process and its machine: rights, pid file, exit status, files that root reads and writes, systemd. Nothing here
knows of mail.
"""
