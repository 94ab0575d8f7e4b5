"""The compiled engine: one step of any field, forward and gradient, made into machine code by Inductor."""
