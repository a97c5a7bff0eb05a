"""
Fuzz targets: properties of each parser, for bytes that Hypothesis makes. L{mailgate.test.fuzz.frame} has what they
share, L{mailgate.test.fuzz.targets} the parsers. Trial runs a few fixed examples of each; C{python -m
mailgate.test.fuzz} runs as many as its time allows.
"""
