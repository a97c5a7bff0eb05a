"""
The process and the operating system: rights, pid file, exit statuses, files that root reads and writes, systemd. The
package does not depend on the mail protocols.
"""
