"""Adapters: make a `oracles.Rule` of hand-written code, whatever it is written in."""
