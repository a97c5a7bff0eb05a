"""
Measures mailgate, nginx and other proxies in one run on one machine: C{python -m bench} from the repository.

Reading order: L{bench.__main__} (the flow), L{bench.measures} (the measures and their goals), L{bench.groups} (their
order), L{bench.proxies} and L{bench.otherproxies} (the proxies), L{bench.measuring} and L{bench.load} (measuring, and
the clients), L{bench.rates}, L{bench.sites} and L{bench.clients} (many logins, many sessions, and the clients for
both), L{bench.backend} and L{bench.authservice} (the services behind the proxies), L{bench.processes} and
L{bench.procfs} (processes and their resources), L{bench.results} and L{bench.spread}, L{bench.report}, L{bench.plots},
L{bench.readme}.

Two other programs share these modules: L{bench.compare} compares two trees of mailgate (L{bench.comparison}), and
L{bench.guessing} measures logins while passwords are guessed (L{bench.attackers}, L{bench.accountfile}). All three
begin and end with L{bench.program}.
"""
