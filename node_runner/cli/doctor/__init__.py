"""`node-run doctor`: what this machine offers, and how many threads it wants."""
