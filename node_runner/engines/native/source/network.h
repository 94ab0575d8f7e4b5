// A multilayer perceptron f(t, y) on a tile of samples: its value, what is integrated beside it, and their gradient.
//
// A row of a tile is WIDTH vectors, so LANES * WIDTH samples. The divergence is the sum over K probes e of
// e . (df/dy) e, by carrying the tangents (df/dy) e beside the values: a block of K + 1 rows of vectors goes through
// each layer at once. For Hutchinson's estimate K is 1; for the exact trace the probes are the K = D unit vectors,
// and the squares of the same tangents sum up to the Jacobian's squared norm. The kinetic energy needs none.
#pragma once
#include <vector>
#include "form.h"

// The weights of one solve, copied, so that a later optimiser step does not change what its gradient sees.
struct Weights {
  std::vector<Real> flat, turned;  // as given; each weight transposed and without the column of time
  std::vector<Real> time;          // that column
  std::vector<Real> plain;         // the first weight without it
  std::vector<Real> scale, shift;  // of the rows that are moved: given after the parameters, and fixed
  Real times = 1, along = 0;       // what the network gives, and y beside it, are multiplied by: likewise

  explicit Weights(const Real* const* tensors)
      : flat(PARAMETERS), turned(PARAMETERS), time(SIZES[1]), scale(MOVED), shift(MOVED) {
    Real* to = flat.data();
    for (int l = 0, n = 0; l < L; l++) {
      const int m = SIZES[l + 1];
      to = std::copy_n(tensors[n++], m * columns(l), to);
      for (int i = 0; i < BIASED[l] + (GATED ? 3 : 0); i++) to = std::copy_n(tensors[n++], m, to);
      for (int j = 0; j < m; j++)
        for (int k = 0; k < SIZES[l]; k++)
          turned[weight_at(l) + k * m + j] = flat[weight_at(l) + j * columns(l) + first_column(l) + k];
    }
    if (MOVED > 0) {
      std::copy_n(tensors[TENSORS], MOVED, scale.data());
      std::copy_n(tensors[TENSORS + 1], MOVED, shift.data());
    }
    if (SCALED || ALONG) times = tensors[TENSORS][0], along = tensors[TENSORS][1];
    if (TIMED) {
      for (int j = 0; j < SIZES[1]; j++) {
        for (int k = 0; k < D; k++) plain.push_back(flat[j * (D + 1) + first_column(0) + k]);
        time[j] = flat[j * (D + 1) + TIME_COLUMN];
      }
    }
  }
  const Real* weight(int l) const { return TIMED && l == 0 ? plain.data() : flat.data() + weight_at(l); }
  const Real* bias(int l) const { return flat.data() + bias_at(l); }
  const Real* transposed(int l) const { return turned.data() + weight_at(l); }
  const Real* gate(int l, int which) const { return flat.data() + gate_at(l, which); }
};

// The gates of every layer at a moment: sigmoid(g t + c), its derivative, and h t.
struct Gates {
  Moment open[GATED ? L : 1][GATED ? widest() : 1], bent[GATED ? L : 1][GATED ? widest() : 1],
      shift[GATED ? L : 1][GATED ? widest() : 1];

  Gates(const Weights& w, Moment t) {
    if constexpr (GATED)
      for (int l = 0; l < L; l++)
        for (int j = 0; j < SIZES[l + 1]; j++) {
          const Moment x = w.gate(l, 0)[j] * t + w.gate(l, 1)[j];
          open[l][j] = sigmoid(x);
          bent[l][j] = open[l][j] * (1 - open[l][j]);
          shift[l][j] = w.gate(l, 2)[j] * t;
        }
  }
};

template <int ROWS, int DEPTH, int C, int FROM, int CB>
static inline void multiply_rows(const Real* a, const Vec* x, Vec* out, const Vec (*begin)[CB]) {
  Vec sum[ROWS][CB];
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < CB; c++) sum[r][c] = begin[r][c];
  for (int k = 0; k < DEPTH; k++) {
    Vec input[CB];
#pragma GCC unroll 8
    for (int c = 0; c < CB; c++) input[c] = x[k * C + FROM + c];
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      Vec weight = splat(a[r * DEPTH + k]);
#pragma GCC unroll 8
      for (int c = 0; c < CB; c++) sum[r][c] += weight * input[c];
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < CB; c++) out[r * C + FROM + c] = sum[r][c];
}

template <int M, int DEPTH, int C, int FROM, class Begin>
static inline void multiply_columns(const Real* a, const Vec* x, Vec* out, Begin begin) {
  constexpr int LEFT = C - FROM;
  constexpr int CB = LEFT >= 4 ? 4 : LEFT;
  constexpr int RB = std::max(1, ACCUMULATORS / (CB == 3 ? 4 : CB));
  int j = 0;
  Vec first[RB][CB];
  for (; j + RB <= M; j += RB) {
    for (int r = 0; r < RB; r++)
      for (int c = 0; c < CB; c++) first[r][c] = begin(j + r, FROM + c);
    multiply_rows<RB, DEPTH, C, FROM, CB>(a + j * DEPTH, x, out + j * C, first);
  }
  if constexpr (M % RB > 0)
    for (; j < M; j++) {
      for (int c = 0; c < CB; c++) first[0][c] = begin(j, FROM + c);
      multiply_rows<1, DEPTH, C, FROM, CB>(a + j * DEPTH, x, out + j * C, first);
    }
  if constexpr (LEFT > CB) multiply_columns<M, DEPTH, C, FROM + CB>(a, x, out, begin);
}

// out (M, C) = begin + a (M, DEPTH) x (DEPTH, C)
template <int M, int DEPTH, int C, class Begin>
static inline void multiply(const Real* a, const Vec* x, Vec* out, Begin begin) {
  multiply_columns<M, DEPTH, C, 0>(a, x, out, begin);
}

template <int WIDTH>
struct Network {
  static constexpr int C = (1 + K) * WIDTH;    // vectors in a row of values and tangents
  static constexpr int TILE = WIDTH * LANES;   // samples in a tile
  static constexpr int STATE = R * WIDTH;      // vectors in the state of a tile

  // What a lane of the state is: a row of one of the tile's samples.
  static constexpr int sample_at(int v, int lane) { return v % WIDTH * LANES + lane; }
  static constexpr int row_at(int v, int) { return v / WIDTH; }

  // What one evaluation leaves behind for its gradient, in vectors.
  static constexpr int inputs_at(int l) { int s = 0; for (int i = 0; i < l; i++) s += SIZES[i] * C; return s; }
  static constexpr int slopes_at(int l) {
    int s = inputs_at(L);
    for (int i = 0; i < l; i++) s += keeps_slope(i) ? SIZES[i + 1] * WIDTH : 0;
    return s;
  }
  static constexpr int sums_at(int l) {
    int s = slopes_at(L);
    if (KEEPS_SUMS) for (int i = 0; i < l; i++) s += SIZES[i + 1] * C;
    return s;
  }
  static constexpr int RESULTS = sums_at(L);   // of the last layer, where the integrals are not linear in them
  static constexpr int POWERED = RESULTS + (SQUARES ? D * C : 0);  // the slopes of y^POWER
  static constexpr int TAPE = POWERED + (POWER > 1 ? D * WIDTH : 0);

  // The gradient of each layer's sum W x + b, in vectors.
  static constexpr int pulls_at(int l) { int s = 0; for (int i = 0; i < l; i++) s += SIZES[i + 1] * C; return s; }
  static constexpr int PULL = pulls_at(L);

  // --- the value ------------------------------------------------------------------------------------

  template <int l>
  static inline void layer(const Weights& w, const Gates& g, const Vec* time, const Vec* probes, Vec* tape, Vec* out) {
    constexpr int M = SIZES[l + 1];
    constexpr bool LAST = l == L - 1;
    Vec scratch[KEEPS_SUMS ? 1 : M * C];
    Vec* sums = KEEPS_SUMS ? tape + sums_at(l) : scratch;
    const Real* bias = w.bias(l);
    multiply<M, SIZES[l], C>(w.weight(l), tape + inputs_at(l), sums, [&](int j, int c) {
      if (c >= WIDTH) return Vec{};
      Vec start = BIASED[l] ? splat(bias[j]) : Vec{};
      if constexpr (TIMED && l == 0) start += w.time[j] * time[c];
      return start;
    });
    if constexpr (LAST)
      for (int r = D * WIDTH; r < STATE; r++) out[r] = Vec{};
    Vec* next = LAST ? nullptr : tape + inputs_at(LAST ? l : l + 1);
    Vec* slopes = tape + slopes_at(l);
    for (int j = 0; j < M; j++)
      for (int c = 0; c < WIDTH; c++) {
        Vec a = sums[j * C + c];
        if constexpr (GATED) a = a * g.open[l][j] + g.shift[l][j];
        const Bend s = bend<ACTIVATIONS[l]>(a);
        if constexpr (keeps_slope(l)) slopes[j * WIDTH + c] = s.slope;
        if constexpr (LAST) {
          out[(MOVED + j) * WIDTH + c] = s.value;
          if constexpr (SQUARES) tape[RESULTS + j * C + c] = a;
          if constexpr (row_of(KINETIC) >= 0) out[row_of(KINETIC) * WIDTH + c] += a * a * (Real(1) / D);
        } else {
          next[j * C + c] = s.value;
          for (int k = 1; k <= K; k++) {
            Vec tangent = sums[j * C + k * WIDTH + c];
            if constexpr (GATED) tangent *= g.open[l][j];
            next[j * C + k * WIDTH + c] = s.slope * tangent;
          }
        }
        if constexpr (LAST)
          for (int k = 1; k <= K; k++) {
            Vec tangent = sums[j * C + k * WIDTH + c];
            if constexpr (GATED) tangent *= g.open[l][j];
            if constexpr (SQUARES) tape[RESULTS + j * C + k * WIDTH + c] = tangent;
            if constexpr (row_of(DIVERGENCE) >= 0)
              out[row_of(DIVERGENCE) * WIDTH + c] += probes[((k - 1) * D + j) * WIDTH + c] * tangent;
            if constexpr (row_of(JACOBIAN) >= 0)
              out[row_of(JACOBIAN) * WIDTH + c] += tangent * tangent * (Real(1) / D);
          }
      }
    if constexpr (!LAST) layer<l + 1>(w, g, time, probes, tape, out);
  }

  // y: (R, WIDTH), time: (WIDTH), probes: (K, D, WIDTH) -> out: (R, WIDTH); fills tape.
  static void evaluate(const Weights& w, const Gates& g, const Vec* time, const Vec* probes, const Vec* y, Vec* tape,
                       Vec* out) {
    for (int i = 0; i < D; i++) {
      for (int c = 0; c < WIDTH; c++) {
        const Vec at = y[i * WIDTH + c];
        tape[i * C + c] = raised<POWER>(at);
        if constexpr (POWER > 1) tape[POWERED + i * WIDTH + c] = POWER * raised<POWER - 1>(at);
      }
      for (int k = 0; k < K; k++)
        for (int c = 0; c < WIDTH; c++) tape[i * C + (k + 1) * WIDTH + c] = probes[(k * D + i) * WIDTH + c];
    }
    layer<0>(w, g, time, probes, tape, out);
    for (int v = 0; v < STATE; v++) {
      if constexpr (SCALED) out[v] *= w.times;
      if constexpr (ALONG) out[v] += w.along * y[v];
    }
    for (int i = 0; i < MOVED; i++)
      for (int c = 0; c < WIDTH; c++) out[i * WIDTH + c] = w.scale[i] * y[(D - MOVED + i) * WIDTH + c] + w.shift[i];
  }

  // --- its gradient ---------------------------------------------------------------------------------

  // Gradients that are gathered as they come: of the gates, and (where asked for) of the time.
  struct Gathered {
    Vec gates[GATED ? L : 1][3][GATED ? widest() : 1] = {};
    Vec time = {};
  };

  template <int l>
  static inline void unlayer(const Weights& w, const Gates& g, Moment t, const Vec* tape, Vec* pulls, Vec* into,
                             Gathered* gathered) {
    constexpr int M = SIZES[l + 1], N = SIZES[l];
    Vec* pull = pulls + pulls_at(l);
    if constexpr (GATED) {
      const Vec* sums = tape + sums_at(l);
      for (int j = 0; j < M; j++) {
        Vec opened = {}, shifted = {};
        for (int c = 0; c < C; c++) {
          opened += pull[j * C + c] * sums[j * C + c];
          if (c < WIDTH) shifted += pull[j * C + c];
          pull[j * C + c] *= g.open[l][j];
        }
        opened *= g.bent[l][j];
        gathered->gates[l][0][j] += opened * t;
        gathered->gates[l][1][j] += opened;
        gathered->gates[l][2][j] += shifted * t;
        gathered->time += opened * w.gate(l, 0)[j] + shifted * w.gate(l, 2)[j];
      }
    }
    if constexpr (TIMED && l == 0)
      for (int j = 0; j < M; j++)
        for (int c = 0; c < WIDTH; c++) gathered->time += pull[j * C + c] * w.time[j];
    auto zero = [](int, int) { return Vec{}; };
    if constexpr (l == 0) {
      if constexpr (K == 0) {
        multiply<N, M, C>(w.transposed(l), pull, into, zero);
        if constexpr (POWER > 1)
          for (int v = 0; v < D * WIDTH; v++) into[v] *= tape[POWERED + v];
      } else {  // the probes are given: their columns need no gradient
        Vec values[M * WIDTH];
        for (int j = 0; j < M; j++)
          for (int c = 0; c < WIDTH; c++) values[j * WIDTH + c] = pull[j * C + c];
        multiply<N, M, WIDTH>(w.transposed(l), values, into, zero);
      }
      for (int r = D * WIDTH; r < STATE; r++) into[r] = Vec{};
    } else {
      constexpr int b = l - 1;  // the layer below, whose activation this one's input is
      Vec* below = pulls + pulls_at(b);
      multiply<N, M, C>(w.transposed(l), pull, below, zero);
      const Vec* values = tape + inputs_at(l);
      const Vec* slopes = tape + slopes_at(b);
      const Vec* sums = tape + sums_at(b);
      for (int i = 0; i < (bent(b) ? N : 0); i++)
        for (int c = 0; c < WIDTH; c++) {
          const Vec h = values[i * C + c];
          Vec slope, curve;  // the second for the tangents: of the sum before the activation, or of that after it
          if constexpr (from_value(b)) {
            slope = 1 - h * h, curve = -2 * h;
          } else if constexpr (keeps_slope(b)) {
            slope = slopes[i * WIDTH + c];
          } else {
            Vec a = sums[i * C + c];
            if constexpr (GATED) a = a * g.open[b][i] + g.shift[b][i];
            const Bend s = bend<ACTIVATIONS[b]>(a);
            slope = s.slope, curve = s.curve;
          }
          Vec bent = {};
          for (int k = 1; k <= K; k++) {
            Vec tangent;
            if constexpr (from_value(b)) {
              tangent = values[i * C + k * WIDTH + c];
            } else {
              tangent = sums[i * C + k * WIDTH + c];
              if constexpr (GATED) tangent *= g.open[b][i];
            }
            bent += tangent * below[i * C + k * WIDTH + c];
            below[i * C + k * WIDTH + c] *= slope;
          }
          below[i * C + c] *= slope;
          if constexpr (K > 0) below[i * C + c] += curve * bent;
        }
      unlayer<b>(w, g, t, tape, pulls, into, gathered);
    }
  }

  // The gradient of out . grad: by y into `into` (R, WIDTH), by each layer's sums into `pulls`.
  static void pull_back(const Weights& w, const Gates& g, Moment t, const Vec* probes, const Vec* tape, const Vec* grad,
                        Vec* pulls, Vec* into, Gathered* gathered) {
    Vec* last = pulls + pulls_at(L - 1);
    const Vec* results = tape + RESULTS;
    for (int j = 0; j < SIZES[L]; j++) {
      for (int c = 0; c < WIDTH; c++) {
        last[j * C + c] = grad[(MOVED + j) * WIDTH + c];
        if constexpr (SCALED) last[j * C + c] *= w.times;
        if constexpr (keeps_slope(L - 1)) last[j * C + c] *= tape[slopes_at(L - 1) + j * WIDTH + c];
        if constexpr (row_of(KINETIC) >= 0)
          last[j * C + c] += grad[row_of(KINETIC) * WIDTH + c] * results[j * C + c] * (Real(2) / D);
      }
      for (int k = 0; k < K; k++)
        for (int c = 0; c < WIDTH; c++) {
          Vec& at = last[j * C + (k + 1) * WIDTH + c];
          at = Vec{};
          if constexpr (row_of(DIVERGENCE) >= 0)
            at += grad[row_of(DIVERGENCE) * WIDTH + c] * probes[(k * D + j) * WIDTH + c];
          if constexpr (row_of(JACOBIAN) >= 0)
            at += grad[row_of(JACOBIAN) * WIDTH + c] * results[j * C + (k + 1) * WIDTH + c] * (Real(2) / D);
        }
    }
    unlayer<L - 1>(w, g, t, tape, pulls, into, gathered);
    if constexpr (ALONG)
      for (int v = 0; v < STATE; v++) into[v] += w.along * grad[v];
    for (int i = 0; i < MOVED; i++)
      for (int c = 0; c < WIDTH; c++) into[(D - MOVED + i) * WIDTH + c] += w.scale[i] * grad[i * WIDTH + c];
  }

  // --- gradients of the parameters, for several evaluations at once ---------------------------------

  struct Evaluation { const Vec *tape, *pulls; const Vec* time; };

  // Rows of one vector lie so far apart from one evaluation to the next that they are brought together first.
  static constexpr bool PACKS = C == 1;
  static constexpr int ACROSS = ACCUMULATORS / 4;  // inputs of a layer that are taken together

  template <int l>
  static void pack(const Evaluation* list, int count, Vec* to) {  // [input / ACROSS][evaluation][input % ACROSS]
    for (int k = 0; k < SIZES[l];) {
      const int together = k + ACROSS <= SIZES[l] ? ACROSS : 1;
      for (int e = 0; e < count; e++) to = std::copy_n(list[e].tape + inputs_at(l) + k, together, to);
      k += together;
    }
  }

  template <int l, int ROWS, int COLUMNS>
  static inline void outer(const Evaluation* list, const Vec* packed, int count, int j, int k, Real* gradient) {
    Vec sums[ROWS][COLUMNS] = {};
    for (int e = 0; e < count; e++) {
      const Vec* pull = list[e].pulls + pulls_at(l) + j * C;
      const Vec* input = PACKS ? packed + k * count + e * COLUMNS : list[e].tape + inputs_at(l) + k * C;
      for (int c = 0; c < C; c++) {
        Vec in[COLUMNS];
#pragma GCC unroll 8
        for (int s = 0; s < COLUMNS; s++) in[s] = input[s * C + c];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 8
          for (int s = 0; s < COLUMNS; s++) sums[r][s] += pull[r * C + c] * in[s];
      }
    }
    for (int r = 0; r < ROWS; r++)
      for (int s = 0; s < COLUMNS; s++)
        gradient[weight_at(l) + (j + r) * columns(l) + first_column(l) + k + s] += sum(sums[r][s]);
  }

  template <int l, int ROWS>
  static inline void outer_rows(const Evaluation* list, const Vec* packed, int count, int j, Real* gradient) {
    int k = 0;
    for (; k + ACROSS <= SIZES[l]; k += ACROSS) outer<l, ROWS, ACROSS>(list, packed, count, j, k, gradient);
    if constexpr (SIZES[l] % ACROSS > 0)
      for (; k < SIZES[l]; k++) outer<l, ROWS, 1>(list, packed, count, j, k, gradient);
    for (int r = 0; r < ROWS; r++) {
      Vec bias = {}, time = {};
      for (int e = 0; e < count; e++)
        for (int c = 0; c < WIDTH; c++) {
          Vec pull = list[e].pulls[pulls_at(l) + (j + r) * C + c];
          bias += pull;
          if constexpr (TIMED && l == 0) time += pull * list[e].time[c];
        }
      if constexpr (BIASED[l]) gradient[bias_at(l) + j + r] += sum(bias);
      if constexpr (TIMED && l == 0) gradient[weight_at(0) + (j + r) * (D + 1) + TIME_COLUMN] += sum(time);
    }
  }

  template <int l = 0>
  static void gather(const Evaluation* list, int count, Real* gradient) {
    // No static memory here: a process has many of these libraries, and they would share it by its name.
    Vec* const packed = PACKS ? new Vec[SIZES[l] * count] : nullptr;
    if constexpr (PACKS) pack<l>(list, count, packed);
    int j = 0;
    for (; j + 4 <= SIZES[l + 1]; j += 4) outer_rows<l, 4>(list, packed, count, j, gradient);
    if constexpr (SIZES[l + 1] % 4 > 0)
      for (; j < SIZES[l + 1]; j++) outer_rows<l, 1>(list, packed, count, j, gradient);
    delete[] packed;
    if constexpr (l + 1 < L) gather<l + 1>(list, count, gradient);
  }

  static void gather_gates(const Gathered& gathered, Real* gradient) {
    if constexpr (GATED)
      for (int l = 0; l < L; l++)
        for (int which = 0; which < 3; which++)
          for (int j = 0; j < SIZES[l + 1]; j++) gradient[gate_at(l, which) + j] += sum(gathered.gates[l][which][j]);
  }
};
