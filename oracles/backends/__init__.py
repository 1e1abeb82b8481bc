"""Array frameworks: arrays there and back, and references differentiated by each framework."""
