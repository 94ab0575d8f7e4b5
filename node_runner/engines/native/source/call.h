// What Python asks of a solve and hears back. The same fields, in the same order, as `Call` in calls.py.
#pragma once
#include <cstdint>

struct Call {
  // what is solved
  int64_t batch, times, threads;
  const Real* const* tensors;  // the parameters, each as PyTorch has it
  const Real* y0;              // (batch, R)
  const double* ts;            // (times,) rising or falling
  const Real* start;           // (batch,) added to the time of each sample, or null
  const Real* noise;           // (batch, D) Hutchinson's probe, or null for the unit vectors

  // the method
  int64_t stages, order, adaptive, ends_in_solution;
  const double *c, *a, *b, *error, *middle;
  double rtol, atol, first_step, min_step, max_step, safety, ifactor, dfactor;  // first_step < 0: estimated
  double step_size;            // of fixed steps; 0: from output time to output time
  int64_t cubic, perturb, max_steps;

  // the gradient: what the forward solve keeps for it
  int64_t keep;                // 0 nothing, 1 every evaluation, 2 accepted states, 3 states at the output times
  double adjoint_rtol, adjoint_atol;
  int64_t seminorm;

  // results
  Real* ys;                    // (times, batch, R)
  int64_t status;              // 0 done, 1 the step is too small, 2 not finite, 3 max_steps spent, 4 no memory
  double t, h;                 // where it stopped
  int64_t sample;              // and which one it was, where each has steps of its own
  int64_t* steps;              // (2, batch) accepted and rejected of each sample, likewise
  int64_t nfe, accepted, rejected, nfe_backward, accepted_backward, rejected_backward, kept_bytes;
};

enum Keep { NOTHING, EVALUATIONS, STATES, OUTPUTS };
enum Status { DONE, TOO_SMALL, NOT_FINITE, TOO_MANY, NO_MEMORY };
