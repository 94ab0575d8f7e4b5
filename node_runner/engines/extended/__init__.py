"""torchdiffeq's functions for the methods that its release lacks: tsit5 and the implicit Runge-Kutta methods."""
