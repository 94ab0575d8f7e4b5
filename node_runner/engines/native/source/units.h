// A multilayer perceptron f(t, y) on one sample, and its gradient: each lane of a vector is a unit of a layer.
//
// A few samples leave most lanes of network.h empty, and a layer fills them. Here a tile is one sample, and a row of n
// numbers (the state, or what goes into a layer) is `blocks(n)` vectors; lanes beyond n have weights of zero, so that
// whatever is in them stays there.
#pragma once
#include <vector>
#include "form.h"

static_assert(!GATED && COUNT == 0 && MOVED == 0 && !NODE_PER_SAMPLE && NODE_WIDTH == 1, "see `units` in plan.py");
static_assert(TENSORS == 2 * L && !TIME_FIRST && !bent(L - 1), "see `usual` in plan.py");

constexpr bool FROM_VALUE = from_value(0), KEEPS_SLOPE = keeps_slope(0);  // of every layer but the last

constexpr int blocks(int n) { return (n + LANES - 1) / LANES; }

// Few sums of many terms are added up across lanes; others have a lane each.
constexpr bool across(int sums, int terms) { return 4 * sums <= terms; }

static inline Real at(const Vec* row, int i) { return row[i / LANES][i % LANES]; }

// The weights of one solve, copied, so that a later optimiser step does not change what its gradient sees.
struct Weights {
  std::vector<Vec> by_outputs[L], by_inputs[L];  // each weight as [input][block of outputs], [output][block of inputs]
  std::vector<Vec> bias[L], time;                // [block of outputs]; `time`: the first layer's weights of it
  Real times = 1, along = 0;                     // what the network gives, and y beside it, are multiplied by

  explicit Weights(const Real* const* tensors) : time(blocks(SIZES[1])) {
    for (int l = 0; l < L; l++) {
      const int m = SIZES[l + 1], n = SIZES[l];
      by_outputs[l].resize(n * blocks(m)), by_inputs[l].resize(m * blocks(n)), bias[l].resize(blocks(m));
      for (int j = 0; j < m; j++) {
        const Real* row = tensors[2 * l] + j * columns(l);
        for (int k = 0; k < n; k++) {
          by_outputs[l][k * blocks(m) + j / LANES][j % LANES] = row[k];
          by_inputs[l][j * blocks(n) + k / LANES][k % LANES] = row[k];
        }
        if (TIMED && l == 0) time[j / LANES][j % LANES] = row[n];
        bias[l][j / LANES][j % LANES] = tensors[2 * l + 1][j];
      }
    }
    if (SCALED || ALONG) times = tensors[TENSORS][0], along = tensors[TENSORS][1];
  }
};

struct Gates {
  Gates(const Weights&, Moment) {}
};

// out = begin + A x for a matrix A of so many sums and terms: `spread` [term][block of sums], `gathered` [sum][block
// of terms], of which one is read.
template <int SUMS, int TERMS, class Begin>
static inline void multiply(const Vec* spread, const Vec* gathered, const Vec* x, Vec* out, Begin begin) {
  constexpr int B = blocks(SUMS);
  if constexpr (across(SUMS, TERMS)) {
    constexpr int T = blocks(TERMS);
    Vec row[B] = {};
#pragma GCC unroll 8
    for (int j = 0; j < SUMS; j++) {
      Vec total = gathered[j * T] * x[0];
      for (int b = 1; b < T; b++) total += gathered[j * T + b] * x[b];
      row[j / LANES][j % LANES] = sum(total);
    }
    for (int b = 0; b < B; b++) out[b] = begin(b) + row[b];
  } else {
    // Some sums at a time, each in a few parts, so that an addition need not wait for the one before.
    constexpr int SIDE = std::min(B, 4), PARTS = std::min(TERMS, 8 / SIDE);
    for (int b = 0; b < B; b += SIDE) {
      const int from = std::min(b, B - SIDE);
      Vec sums[PARTS][SIDE] = {};
      for (int s = 0; s < SIDE; s++) sums[0][s] = begin(from + s);
      int k = 0;
      for (; k + PARTS <= TERMS; k += PARTS)
#pragma GCC unroll 8
        for (int p = 0; p < PARTS; p++)
#pragma GCC unroll 4
          for (int s = 0; s < SIDE; s++) sums[p][s] += spread[(k + p) * B + from + s] * at(x, k + p);
      for (; k < TERMS; k++)
        for (int s = 0; s < SIDE; s++) sums[0][s] += spread[k * B + from + s] * at(x, k);
      for (int s = 0; s < SIDE; s++) {
        for (int p = 1; p < PARTS; p++) sums[0][s] += sums[p][s];
        out[from + s] = sums[0][s];
      }
    }
  }
}

template <int WIDTH>
struct Network {
  static constexpr int C = 1, TILE = 1;
  static constexpr int STATE = blocks(D);

  // What a lane of the state is: a row of the tile's one sample.
  static constexpr int sample_at(int, int) { return 0; }
  static constexpr int row_at(int v, int lane) { return v * LANES + lane; }

  // What one evaluation leaves behind for its gradient, in vectors: the inputs of each layer, slopes of activations
  // that do not tell them, and those of y^POWER.
  static constexpr int inputs_at(int l) { int s = 0; for (int i = 0; i < l; i++) s += blocks(SIZES[i]); return s; }
  static constexpr int slopes_at(int l) { return inputs_at(L) + inputs_at(l + 1) - blocks(D); }
  static constexpr int POWERED = KEEPS_SLOPE ? slopes_at(L - 1) : inputs_at(L);
  static constexpr int TAPE = POWERED + (POWER > 1 ? blocks(D) : 0);

  // The gradient of each layer's sum W x + b, in vectors.
  static constexpr int pulls_at(int l) { return inputs_at(l + 1) - blocks(D); }
  static constexpr int PULL = pulls_at(L);

  // --- the value ------------------------------------------------------------------------------------

  template <int l>
  static inline void layer(const Weights& w, const Vec* time, Vec* tape, Vec* out) {
    constexpr int M = SIZES[l + 1], N = SIZES[l];
    constexpr bool LAST = l == L - 1;
    Vec sums[blocks(M)];
    multiply<M, N>(w.by_outputs[l].data(), w.by_inputs[l].data(), tape + inputs_at(l), LAST ? out : sums, [&](int b) {
      return TIMED && l == 0 ? w.bias[l][b] + w.time[b] * time[0] : w.bias[l][b];
    });
    if constexpr (!LAST) {
      for (int b = 0; b < blocks(M); b++) {
        const Bend s = bend<ACTIVATIONS[0]>(sums[b]);
        tape[inputs_at(l + 1) + b] = s.value;
        if constexpr (KEEPS_SLOPE) tape[slopes_at(l) + b] = s.slope;
      }
      layer<l + 1>(w, time, tape, out);
    }
  }

  // y: (D), time: one vector -> out: (D); fills tape.
  static void evaluate(const Weights& w, const Gates&, const Vec* time, const Vec*, const Vec* y, Vec* tape, Vec* out) {
    for (int b = 0; b < blocks(D); b++) {
      tape[b] = raised<POWER>(y[b]);
      if constexpr (POWER > 1) tape[POWERED + b] = POWER * raised<POWER - 1>(y[b]);
    }
    layer<0>(w, time, tape, out);
    for (int b = 0; b < STATE; b++) {
      if constexpr (SCALED) out[b] *= w.times;
      if constexpr (ALONG) out[b] += w.along * y[b];
    }
  }

  // --- its gradient ---------------------------------------------------------------------------------

  struct Gathered {
    Vec time = {};  // whose gradient is the sum of this
  };

  template <int l>
  static inline void unlayer(const Weights& w, const Vec* tape, Vec* pulls, Vec* into) {
    constexpr int M = SIZES[l + 1], N = SIZES[l];
    Vec* below = l == 0 ? into : pulls + pulls_at(l == 0 ? 0 : l - 1);
    multiply<N, M>(w.by_inputs[l].data(), w.by_outputs[l].data(), pulls + pulls_at(l), below, [](int) { return Vec{}; });
    if constexpr (l > 0) {
      for (int b = 0; b < blocks(N); b++) {
        const Vec h = tape[inputs_at(l) + b];
        below[b] *= FROM_VALUE ? 1 - h * h : tape[slopes_at(l - 1) + b];
      }
      unlayer<l - 1>(w, tape, pulls, into);
    }
  }

  // The gradient of out . grad: by y into `into` (D), by each layer's sums into `pulls`.
  static void pull_back(const Weights& w, const Gates&, Moment, const Vec*, const Vec* tape, const Vec* grad, Vec* pulls,
                        Vec* into, Gathered* gathered) {
    for (int b = 0; b < STATE; b++) {
      pulls[pulls_at(L - 1) + b] = grad[b];
      if constexpr (SCALED) pulls[pulls_at(L - 1) + b] *= w.times;
    }
    unlayer<L - 1>(w, tape, pulls, into);
    if constexpr (POWER > 1)
      for (int b = 0; b < STATE; b++) into[b] *= tape[POWERED + b];
    if constexpr (ALONG)
      for (int b = 0; b < STATE; b++) into[b] += w.along * grad[b];
    if constexpr (TIMED)
      for (int b = 0; b < blocks(SIZES[1]); b++) gathered->time += pulls[b] * w.time[b];
  }

  // --- gradients of the parameters, for several evaluations at once ---------------------------------

  struct Evaluation { const Vec *tape, *pulls; const Vec* time; };

  // The weights that lead to ROWS outputs of a layer from a block of its inputs, or the other way round: with the
  // shorter of the two sides in rows, the lanes are full.
  template <int l, bool TURNED, int ROWS>
  static inline void outer(const Evaluation* list, int count, int row, int b, Real* gradient) {
    Vec sums[ROWS] = {};
    for (int e = 0; e < count; e++) {
      const Vec *inputs = list[e].tape + inputs_at(l), *pulls = list[e].pulls + pulls_at(l);
      const Vec lanes = TURNED ? pulls[b] : inputs[b];
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) sums[r] += lanes * at(TURNED ? inputs : pulls, row + r);
    }
    Real* to = gradient + weight_at(l);
    const int first = b * LANES, last = std::min(first + LANES, TURNED ? SIZES[l + 1] : SIZES[l]);
    for (int r = 0; r < ROWS; r++)
      for (int i = first; i < last; i++)
        to[TURNED ? i * columns(l) + row + r : (row + r) * columns(l) + i] += sums[r][i - first];
  }

  template <int l = 0>
  static void gather(const Evaluation* list, int count, Real* gradient) {
    constexpr int M = SIZES[l + 1], N = SIZES[l];
    constexpr bool TURNED = M > N;
    constexpr int SHORT = std::min(M, N), ROWS = std::min(SHORT, 8);
    for (int b = 0; b < blocks(std::max(M, N)); b++) {
      int row = 0;
      for (; row + ROWS <= SHORT; row += ROWS) outer<l, TURNED, ROWS>(list, count, row, b, gradient);
      for (; row < SHORT; row++) outer<l, TURNED, 1>(list, count, row, b, gradient);
    }
    for (int b = 0; b < blocks(M); b++) {
      Vec bias = {}, time = {};
      for (int e = 0; e < count; e++) {
        const Vec pull = list[e].pulls[pulls_at(l) + b];
        bias += pull;
        if constexpr (TIMED && l == 0) time += pull * list[e].time[0];
      }
      for (int j = b * LANES; j < std::min((b + 1) * LANES, M); j++) {
        gradient[bias_at(l) + j] += bias[j % LANES];
        if constexpr (TIMED && l == 0) gradient[weight_at(0) + j * columns(0) + D] += time[j % LANES];
      }
    }
    if constexpr (l + 1 < L) gather<l + 1>(list, count, gradient);
  }

  static void gather_gates(const Gathered&, Real*) {}
};
