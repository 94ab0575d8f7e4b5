"""`node-run OVERRIDES`: Hydra, one run, and the jobs of a sweep."""
