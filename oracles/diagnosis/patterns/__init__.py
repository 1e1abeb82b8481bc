"""The defects that diagnosis knows by name, each a pure function from symptoms to a sentence."""
