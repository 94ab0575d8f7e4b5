"""The engine of independent samples: adaptive methods whose step size is each sample's own.

control.py  the choice of every sample's step size
solve.py    the loop
taking.py   whether a field takes a time for each sample
engine.py   what it serves
"""
