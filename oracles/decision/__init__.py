"""From numbers to a verdict.

`judge` evaluates the subject and the oracles at one point, `type_errors` checks shapes and dtypes, `comparison` holds
one array against the oracles, `decisions` is the ordered table that decides about it, with `kinks` and `precision`.
"""
