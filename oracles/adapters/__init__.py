"""Lifts: what makes a Rule of hand-written code, whatever it is written in."""
