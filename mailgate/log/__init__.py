"""
The log: levels, files, syslog and the rate of lines (L{mailgate.log.journal} is what the rest of mailgate writes to),
and the lines about one connection (L{mailgate.log.connection}). When a connection is logged is not decided here.
"""
