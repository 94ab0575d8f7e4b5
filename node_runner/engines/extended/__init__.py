"""torchdiffeq's functions for the methods that its release lacks: tsit5, leapfrog and implicit Runge-Kutta methods."""
