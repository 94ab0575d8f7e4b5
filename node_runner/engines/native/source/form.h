// What the field is: its sizes, its parts, what is integrated beside it, and where its parameters lie.
#pragma once
#include <algorithm>
#include <type_traits>
#include "activation.h"

constexpr int SIZES[] = NODE_SIZES;            // D, hidden widths, and what it gives: D, or less
constexpr int L = sizeof SIZES / sizeof *SIZES - 1;
constexpr bool TIMED = NODE_TIMED;             // the first layer has one more input, the time
constexpr int POWER = NODE_POWER;              // of y, which the first layer sees
constexpr bool GATED = NODE_GATED;             // every layer is gated and shifted by time (concatsquash)
constexpr int K = NODE_PROBES;                 // 0: no tangents
enum Integral { DIVERGENCE, KINETIC, JACOBIAN };
constexpr int INTEGRALS[] = NODE_INTEGRALS;    // in the order of their rows, then -1
constexpr int COUNT = sizeof INTEGRALS / sizeof *INTEGRALS - 1;
constexpr int D = SIZES[0], R = D + COUNT;     // rows of the state: y, and the integrals
constexpr int MOVED = D - SIZES[L];            // first rows, moved by the last: scale_i y_(D - MOVED + i) + shift_i
constexpr int NORM_ROWS = NODE_NORM_ROWS;      // the first rows, whose error decides about a step

constexpr int row_of(Integral which) {         // -1: it is not integrated
  for (int i = 0; i < COUNT; i++)
    if (INTEGRALS[i] == which) return D + i;
  return -1;
}
constexpr bool SQUARES = row_of(KINETIC) >= 0 || row_of(JACOBIAN) >= 0;  // what is integrated is not linear in f
static_assert(MOVED == 0 || COUNT == 0, "integrals are those of the network");
static_assert(POWER == 1 || K == 0, "tangents are those of the state");

// What an evaluation keeps beside the inputs of its layers. Less memory is more speed: the tanh of a tells its own
// slope, 1 - h^2, and s''(a) a' = -2h h' for a tangent a'; other activations keep their slope, or their argument.
constexpr bool FROM_VALUE = ACTIVATION == TANH;
constexpr bool KEEPS_SUMS = GATED || (K > 0 && !FROM_VALUE);
constexpr bool KEEPS_SLOPE = !FROM_VALUE && !KEEPS_SUMS;

constexpr int widest() { int most = 0; for (int size : SIZES) most = std::max(most, size); return most; }

// Where each tensor lies in the flat list of parameters: weight, bias and the three of the gate, layer by layer.
constexpr int columns(int layer) { return SIZES[layer] + (TIMED && layer == 0); }
constexpr int weight_at(int layer) {
  int place = 0;
  for (int l = 0; l < layer; l++) place += SIZES[l + 1] * (columns(l) + 1 + (GATED ? 3 : 0));
  return place;
}
constexpr int bias_at(int layer) { return weight_at(layer) + SIZES[layer + 1] * columns(layer); }
constexpr int gate_at(int layer, int which) { return bias_at(layer) + SIZES[layer + 1] * (1 + which); }
constexpr int PARAMETERS = weight_at(L);
constexpr int TENSORS = L * (GATED ? 5 : 2);

// A time for all samples, or where each has steps of its own, one for each.
typedef std::conditional_t<NODE_PER_SAMPLE, Vec, Real> Moment;
static inline Moment moment(Real t) { return t - Moment{}; }
