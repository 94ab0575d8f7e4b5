// What the field is: its sizes, its parts, what is integrated beside it, and where its parameters lie.
#pragma once
#include <algorithm>
#include <type_traits>
#include "activation.h"

constexpr int SIZES[] = NODE_SIZES;            // D, hidden widths, and what it gives: D, or less
constexpr int L = sizeof SIZES / sizeof *SIZES - 1;
constexpr bool TIMED = NODE_TIMED;             // the first layer has one more input, the time,
constexpr bool TIME_FIRST = NODE_TIME_FIRST;   // before the state or after it
constexpr bool BIASED[] = NODE_BIASED;         // whether each layer has a bias
constexpr int POWER = NODE_POWER;              // of y, which the first layer sees
constexpr bool SCALED = NODE_SCALED;           // a number times what the network gives,
constexpr bool ALONG = NODE_ALONG;             // to which a multiple of y is added
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
static_assert((!SCALED && !ALONG) || (MOVED == 0 && COUNT == 0), "they are of the whole state");

// What an evaluation keeps beside the inputs of its layers. Less memory is more speed: the tanh of a tells its own
// slope, 1 - h^2, and s''(a) a' = -2h h' for a tangent a'; other activations keep their slope, or their argument.
constexpr bool bent(int layer) { return ACTIVATIONS[layer] != NONE; }
constexpr bool from_value(int layer) { return ACTIVATIONS[layer] == TANH; }
constexpr bool bends_otherwise() {
  for (int l = 0; l < L; l++)
    if (bent(l) && !from_value(l)) return true;
  return false;
}
constexpr bool KEEPS_SUMS = GATED || (K > 0 && bends_otherwise());
constexpr bool keeps_slope(int layer) {        // the last layer's result is not kept
  return bent(layer) && (layer == L - 1 || (!from_value(layer) && !KEEPS_SUMS));
}
static_assert(!bent(L - 1) || COUNT == 0, "integrals are those of a network that ends in a layer");

constexpr int widest() { int most = 0; for (int size : SIZES) most = std::max(most, size); return most; }

// Where each tensor lies in the flat list of parameters: weight, bias and the three of the gate, layer by layer.
constexpr int columns(int layer) { return SIZES[layer] + (TIMED && layer == 0); }
constexpr int first_column(int layer) { return TIMED && TIME_FIRST && layer == 0; }  // that is no time
constexpr int TIME_COLUMN = TIME_FIRST ? 0 : D;
constexpr int weight_at(int layer) {
  int place = 0;
  for (int l = 0; l < layer; l++) place += SIZES[l + 1] * (columns(l) + BIASED[l] + (GATED ? 3 : 0));
  return place;
}
constexpr int bias_at(int layer) { return weight_at(layer) + SIZES[layer + 1] * columns(layer); }
constexpr int gate_at(int layer, int which) { return bias_at(layer) + SIZES[layer + 1] * (BIASED[layer] + which); }
constexpr int PARAMETERS = weight_at(L);
constexpr int tensors() { int count = L * (GATED ? 4 : 1); for (bool biased : BIASED) count += biased; return count; }
constexpr int TENSORS = tensors();

// A time for all samples, or where each has steps of its own, one for each.
typedef std::conditional_t<NODE_PER_SAMPLE, Vec, Real> Moment;
static inline Moment moment(Real t) { return t - Moment{}; }
