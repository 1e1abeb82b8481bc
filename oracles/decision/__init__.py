"""From numbers to a verdict: compare, arbitrate, weigh digits and kinks."""
