"""
Mailgate measured against nginx and other proxies, in one run on one machine: C{python -m bench} from the repository.

Reading order: L{bench.__main__} (the flow), L{bench.measures} (what is measured, and the figures to reach),
L{bench.groups} (in which order), L{bench.proxies} and L{bench.otherproxies} (who is measured), L{bench.measuring} and
L{bench.load} (how, and by which clients), L{bench.backend} and L{bench.authservice} (what stands behind the proxies),
L{bench.processes} and L{bench.procfs} (who runs, and what it takes), L{bench.results}, L{bench.report}, L{bench.plots}.

Two other programs share these: L{bench.compare} (two trees of mailgate; L{bench.comparison}), and L{bench.guessing}
(logins while passwords are guessed; L{bench.attackers}, L{bench.accountfile}). L{bench.program} is what all three begin
and end with.
"""
