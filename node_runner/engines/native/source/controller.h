// The choice of the step size, as torchdiffeq makes it: its clock is float64, its error is of the state's type.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include "lanes.h"
#include "call.h"

// The next step after one of size h whose error was `ratio` times what the tolerance allows.
static inline double next_step(const Call& o, double h, Real ratio) {
  double next;
  if (ratio == 0) {
    next = h * o.ifactor;
  } else if (std::isnan(ratio)) {
    next = std::numeric_limits<double>::quiet_NaN();
  } else {
    double least = ratio < 1 ? 1.0 : o.dfactor;
    next = h * std::min(o.ifactor, std::max(o.safety / std::pow(double(ratio), 1.0 / double(o.order)), least));
  }
  return next < o.min_step ? o.min_step : next > o.max_step ? o.max_step : next;
}

// The size of an attempt: a step that is not a number becomes the smallest one, which then fails.
static inline double attempted(const Call& o, double h) {
  if (!std::isfinite(h)) h = o.min_step;
  return std::min(std::max(h, o.min_step), o.max_step);
}

static inline bool accepted(const Call& o, double h, Real ratio) {
  if (h <= o.min_step) return true;
  return ratio <= 1 && !(h > o.max_step);
}

// Hairer, Norsett and Wanner, Solving ODEs I, section II.4: a first guess from the sizes of y and f, and the second
// from the change of f over it. `sizes` gives the norms of y and f, `change` that of f(h0) - f(0), both scaled.
static inline Real guess(Real d0, Real d1) {
  return d0 < Real(1e-5) || d1 < Real(1e-5) ? Real(1e-6) : Real(0.01) * d0 / d1;
}
static inline double second_guess(const Call& o, Real h0, Real d1, Real d2) {
  Real h1;
  if (d1 <= Real(1e-15) && d2 <= Real(1e-15)) h1 = std::max(Real(1e-6), h0 * Real(1e-3));
  else h1 = std::pow(Real(0.01) / std::max(d1, d2), Real(1) / Real(o.order));
  return double(std::isnan(h1) || std::isnan(h0) ? std::numeric_limits<Real>::quiet_NaN() : std::min(100 * h0, h1));
}
template <class Change>
static inline double first_step(const Call& o, Real d0, Real d1, Change change) {
  const Real h0 = guess(d0, d1);
  return second_guess(o, h0, d1, std::abs(change(h0) / h0));
}

// The ends of the steps of a fixed-step method from `from` to `to`, in the state's type as torchdiffeq has them.
static inline std::vector<Real> grid(const Call& o, const double* ts, int64_t times) {
  std::vector<Real> ends;
  if (o.step_size <= 0) {
    for (int64_t i = 0; i < times; i++) ends.push_back(Real(ts[i]));
    return ends;
  }
  Real from = Real(ts[0]), to = Real(ts[times - 1]);
  int64_t count = int64_t(std::ceil((to - from) / Real(o.step_size) + 1));
  for (int64_t i = 0; i < count; i++) ends.push_back(Real(i) * Real(o.step_size) + from);
  ends.back() = to;
  return ends;
}
