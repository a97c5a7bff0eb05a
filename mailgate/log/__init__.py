"""
The log: L{mailgate.log.journal} is what the rest of mailgate writes to, L{mailgate.log.errorlog} has the observers that
bring it to files, syslog and standard error, and L{mailgate.log.connection} the lines about one connection. When a
connection is logged is not decided here.
"""
