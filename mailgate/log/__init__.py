"""
The log. The other packages log through L{mailgate.log.journal}. L{mailgate.log.errorlog} writes the events to files,
syslog and standard error. L{mailgate.log.connection} has the formats of the lines about one connection.
"""
