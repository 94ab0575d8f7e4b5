"""The native engine: a whole solve and its gradient in C++ written for one network, on the CPU.

source/lanes.h       vectors, exponentials
source/activation.h  activations and their derivatives
source/form.h        what the field is: sizes, parts, places of its parameters
source/network.h     f(t, y) on a tile of samples, its divergence, their gradients
source/units.h       f(t, y) on one sample, a layer's units in the lanes of a vector, and its gradient
source/controller.h  the choice of the step size
source/solve.cpp     the forward solve
source/discrete.h    the gradient of the computed numbers
source/per_sample.h  the forward solve with steps of each sample's own
source/per_sample_gradient.h  and the gradient of that
source/continuous.h  the continuous adjoint
source/call.h        what Python asks and hears

build.py             the compiler, and the folder that keeps what it built
plan.py              the network that a field is, and the library written for it
calls.py             one solve: arguments, results, gradient
engine.py            what it serves
"""
