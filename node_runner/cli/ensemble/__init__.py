"""`node-run ensemble`: runs of several seeds together."""
