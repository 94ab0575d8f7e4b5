"""`node-run ood`: does a density know what it was not fitted to?"""
