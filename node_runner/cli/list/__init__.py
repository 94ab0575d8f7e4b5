"""`node-run list`: what can be chosen, and what can be set."""
