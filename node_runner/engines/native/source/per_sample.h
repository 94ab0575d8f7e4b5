// Part of Solve: adaptive steps of each sample's own.
//
// Samples know nothing of each other: each is solved in a lane of one vector, with its own clock, step size and error.
// A lane whose sample has arrived takes the next one that waits, first those whose first step is the smallest, since
// they are likely to need the most; so lanes idle only while the last samples finish.
//
// Rows are one vector wide here. Rows of four are 2 % faster a sample forward, and 15 % back, but have 64 lanes of
// float32 to keep busy: of 64 samples none waits, and all are as slow as the slowest. (64 trajectories of which one
// needs five times the steps of the others: 5.1 ms a training step with rows of one, 17 with rows of four; all alike:
// 18 and 17.)

static_assert(WIDTH == 1);

// An attempt that is kept for the gradient, since at least one lane accepted it: who did, and from which output time on
// up to which. Lanes that rejected it, or are empty, have nobody and a step of size 0.
struct Attempt {
  int64_t who[LANES], first[LANES], last[LANES];
  double t[LANES], h[LANES];
  Pool::Block kept;  // EVALUATIONS: tapes of its stages; STATES: y and f at its beginning
};
std::vector<std::deque<Attempt>> attempts;  // of each thread
struct Stuck { int64_t attempt, sample; Status status; double t, h; };

// What the samples in the lanes of a vector have of their own beside their states.
struct Lanes {
  const Solve& solve;
  int64_t who[LANES];      // -1: nobody
  Vec start = {};
  std::vector<Vec> probes; // (K, D)
  explicit Lanes(const Solve& s) : solve(s), probes(K * D) { std::fill_n(who, LANES, -1); }

  void enter(int lane, int64_t sample) {
    who[lane] = sample;
    start[lane] = solve.start[sample / LANES][sample % LANES];
    for (int v = 0; v < K * D; v++) probes[v][lane] = solve.probes_of(sample / LANES)[v][sample % LANES];
  }
  Vec time(Vec t) const { return (solve.sign < 0 ? -t : t) + start; }  // the field's, from the solver's
  void evaluate(Vec t, const Vec* state, Vec* tape, Vec* out) const {
    const Vec now = time(t);
    solve.evaluate_lanes(&now, probes.data(), state, tape, out);
  }
};

void evaluate_lanes(const Vec* now, const Vec* probes, const Vec* state, Vec* tape, Vec* out) const {
  Net::evaluate(weights, Gates(weights, *now), now, probes, state, tape, out);
  if (sign < 0)
    for (int r = 0; r < R; r++) out[r] = -out[r];
}

// sum_i weights[i] h k[i], with a step size for each lane
static Vec combined(const double* weights, int count, Vec h, const std::vector<std::vector<Vec>>& k, int r) {
  Vec total = {};
  for (int i = 0; i < count; i++)
    if (weights[i] != 0) total += Real(weights[i]) * h * k[i][r];
  return total;
}

template <class Value>
static Vec lane_norms(Value value) {  // RMS over the first rows of each lane
  Vec total = {};
  for (int r = 0; r < NORM_ROWS; r++) {
    const Vec e = value(r);
    total += e * e;
  }
  return each(total / Real(NORM_ROWS), [](Real a) { return std::sqrt(a); });
}
static bool all(Mask mask) {
  bool every = true;
  for (int l = 0; l < LANES; l++) every &= mask[l] != 0;
  return every;
}
static bool lane_finite(const std::vector<Vec>& state, int lane) {
  return std::all_of(state.begin(), state.end(), [&](const Vec& v) { return std::isfinite(v[lane]); });
}

// When the lanes evaluate stage i, by the solver's clock.
static Vec stage_times(const Call& o, int i, const double* t, const double* h) {
  Vec now = {};
  if (TIMED || GATED)
    for (int l = 0; l < LANES; l++) now[l] = stage_time(o, i, t[l], h[l], t[l] + h[l]);
  return now;
}
static Vec sizes(const double* h) {
  Vec size;
  for (int l = 0; l < LANES; l++) size[l] = Real(h[l]);
  return size;
}

// The stages of one attempt: k[0] is known, evaluation i leaves its tape at tapes + (i - 1) * stride.
void take_lanes(const Call& o, const Lanes& lanes, const double* t, const double* h, const std::vector<Vec>& from,
                std::vector<std::vector<Vec>>& ks, std::vector<Vec>& to, Vec* tapes, size_t stride) const {
  const int stages = int(o.stages);
  const Vec size = sizes(h);
  for (int i = 1; i < stages; i++) {
    for (int r = 0; r < R; r++) to[r] = from[r] + combined(o.a + i * stages, i, size, ks, r);
    lanes.evaluate(stage_times(o, i, t, h), to.data(), tapes + (i - 1) * stride, ks[i].data());
  }
  if (!o.ends_in_solution)
    for (int r = 0; r < R; r++) to[r] = from[r] + combined(o.b, stages, size, ks, r);
}

void per_sample(Call& o) {
  if (o.times < 2) return;
  if (o.keep == EVALUATIONS) first_tape.resize(size_t(tiles) * Net::TAPE);
  if (o.keep == STATES) first_state = y;
  // Samples begin with what y and k[0] are from here on.
  evaluate(Real(clock[0]), y.data(), k[0].data(), o.keep == EVALUATIONS ? first_tape.data() : scratch.data());
  std::vector<double> first(batch, o.first_step);
  if (o.first_step < 0) first_steps(o, first);
  std::vector<int64_t> order(batch);
  for (int64_t s = 0; s < batch; s++) order[s] = s;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return first[a] < first[b]; });

  attempts.resize(threads);
  std::vector<Stuck> stuck(threads, Stuck{std::numeric_limits<int64_t>::max(), 0, DONE, 0, 0});
  on_threads([&](int i) {
    solve_lanes(o, i, first, order, stuck[i]);
  });
  int64_t most = 0;
  for (int64_t s = 0; s < batch; s++) most = std::max(most, o.steps[s] + o.steps[batch + s]);
  nfe += most * (o.stages - 1);
  const Stuck& worst = *std::min_element(stuck.begin(), stuck.end(), earlier);
  if (worst.status != DONE) o.status = worst.status, o.t = sign * worst.t, o.h = worst.h, o.sample = worst.sample;
  if (o.keep == OUTPUTS && o.status == DONE)
    for (int64_t j = 0; j < o.times; j++)
      for (int tile = 0; tile < tiles; tile++)
        load(o.ys + j * batch * R, outputs.data() + j * size + size_t(tile) * R, tile, true);
}
static bool earlier(const Stuck& a, const Stuck& b) {
  return a.attempt != b.attempt ? a.attempt < b.attempt : a.sample < b.sample;
}

void first_steps(const Call& o, std::vector<double>& first) {
  nfe++;
  on_tiles([&](int tile) {
    const Vec *state = y.data() + size_t(tile) * R, *slope = k[0].data() + size_t(tile) * R;
    std::vector<Vec> moved(R), other(R);
    auto scale = [&](int r) { return Real(o.atol) + absolute(state[r]) * Real(o.rtol); };
    const Vec d0 = lane_norms([&](int r) { return state[r] / scale(r); });
    const Vec d1 = lane_norms([&](int r) { return slope[r] / scale(r); });
    Vec h0;
    for (int l = 0; l < LANES; l++) h0[l] = guess(d0[l], d1[l]);
    for (int r = 0; r < R; r++) moved[r] = state[r] + h0 * slope[r];
    const Vec at = Real(clock[0]) + h0, now = (sign < 0 ? -at : at) + start[tile];
    evaluate_lanes(&now, probes_of(tile), moved.data(), scratch.data() + size_t(tile) * Net::TAPE, other.data());
    const Vec d2 = lane_norms([&](int r) { return (other[r] - slope[r]) / scale(r); });
    for (int l = 0; l < LANES && sample(tile, 0, l) < batch; l++)
      first[sample(tile, 0, l)] = second_guess(o, h0[l], d1[l], std::abs(d2[l] / h0[l]));
  });
}

// Solves the samples of one thread, always the same ones. Of those that get stuck the earliest is remembered, and
// others that have come further than it are let go.
void solve_lanes(const Call& o, int thread, const std::vector<double>& first, const std::vector<int64_t>& order,
                 Stuck& stuck) {
  const int stages = int(o.stages);
  Lanes lanes(*this);
  std::vector<Vec> from(R), to(R), other(R), tape(Net::TAPE);
  std::vector<std::vector<Vec>> ks(stages, std::vector<Vec>(R));
  double t[LANES] = {}, h[LANES] = {};
  int64_t next[LANES], taken[LANES], refused[LANES], waiting = thread;
  Pool::Block block;

  auto enter = [&](int l) {  // whether there was one to enter
    if (waiting >= batch) return false;
    const int64_t s = order[waiting];
    waiting += threads;
    lanes.enter(l, s);
    t[l] = clock[0], h[l] = first[s], next[l] = 1, taken[l] = refused[l] = 0;
    for (int r = 0; r < R; r++) {
      from[r][l] = y[s / LANES * R + r][s % LANES];
      ks[0][r][l] = k[0][s / LANES * R + r][s % LANES];
    }
    return true;
  };
  auto leave = [&](int l) {
    o.steps[lanes.who[l]] = taken[l], o.steps[batch + lanes.who[l]] = refused[l];
    lanes.who[l] = -1, h[l] = 0;
  };
  auto failing = [&](int l) {  // why the sample cannot go on, or DONE
    if (taken[l] + refused[l] >= o.max_steps) return TOO_MANY;
    if (t[l] + h[l] > t[l] && lane_finite(from, l)) return DONE;
    Vec now;
    for (int m = 0; m < LANES; m++) now[m] = Real(t[m]);
    lanes.evaluate(now, from.data(), tape.data(), other.data());
    return lane_finite(from, l) && lane_finite(other, l) ? TOO_SMALL : NOT_FINITE;
  };

  for (;;) {
    bool running = false;
    for (int l = 0; l < LANES; l++)
      while (lanes.who[l] >= 0 || enter(l)) {
        h[l] = attempted(o, h[l]);
        const Stuck here{taken[l] + refused[l], lanes.who[l], failing(l), t[l], h[l]};
        if (here.status == DONE && here.attempt <= stuck.attempt) {
          running = true;
          break;
        }
        if (here.status != DONE && earlier(here, stuck)) stuck = here;
        leave(l);
      }
    if (!running) break;
    if (o.keep == EVALUATIONS && block.empty()) block = pool.take(Net::TAPE * (stages - 1));
    if (o.keep == STATES && block.empty()) block = pool.take(2 * R);
    const bool keeps_tapes = o.keep == EVALUATIONS;
    take_lanes(o, lanes, t, h, from, ks, to, keeps_tapes ? block.data() : tape.data(), keeps_tapes ? Net::TAPE : 0);
    const Vec size = sizes(h);
    const Vec ratio = lane_norms([&](int r) {
      return combined(o.error, stages, size, ks, r) /
             (Real(o.atol) + Real(o.rtol) * larger(absolute(from[r]), absolute(to[r])));
    });
    Attempt attempt;
    Mask moves = {};
    bool any = false;
    for (int l = 0; l < LANES; l++) {
      attempt.who[l] = -1, attempt.t[l] = t[l], attempt.h[l] = 0;
      if (lanes.who[l] < 0) continue;
      const double taking = h[l];
      h[l] = next_step(o, taking, ratio[l]);
      if (!accepted(o, taking, ratio[l])) {
        refused[l]++;
        continue;
      }
      any = true;
      moves[l] = -1;
      attempt.who[l] = lanes.who[l], attempt.h[l] = taking, attempt.first[l] = next[l];
      while (next[l] < o.times && clock[next[l]] <= t[l] + taking) next[l]++;
      attempt.last[l] = next[l];
      write_lane(o, attempt, l, from, to, ks);
      t[l] += taking;
      taken[l]++;
      if (next[l] == o.times) leave(l);
    }
    if (!block.empty() && any) {
      attempt.kept = std::move(block);
      Vec* kept = attempt.kept.data();
      if (o.keep == STATES) std::copy_n(ks[0].data(), R, std::copy_n(from.data(), R, kept));
      else if (!all(moves))  // what a rejected step came to need not be finite, and zero times infinity is not zero
        for (Vec& v : attempt.kept) v = moves ? v : Vec{};
      attempts[thread].push_back(std::move(attempt));
    }
    for (int r = 0; r < R; r++) {
      from[r] = moves ? to[r] : from[r];
      ks[0][r] = moves ? ks[stages - 1][r] : ks[0][r];
    }
  }
  if (!block.empty()) pool.give(std::move(block));
}

// The dense output of a lane, see `interpolate`.
void write_lane(const Call& o, const Attempt& step, int l, const std::vector<Vec>& from, const std::vector<Vec>& to,
                const std::vector<std::vector<Vec>>& ks) const {
  if (step.first[l] == step.last[l]) return;
  const int stages = int(o.stages);
  const Real h = Real(step.h[l]);
  for (int r = 0; r < R; r++) {
    const Real a0 = from[r][l], a1 = to[r][l], f0 = h * ks[0][r][l], f1 = h * ks[stages - 1][r][l];
    Real middle = 0;
    for (int m = 0; m < stages; m++)
      if (o.middle[m] != 0) middle += Real(o.middle[m]) * h * ks[m][r][l];
    const Real ym = a0 + middle, a = 2 * (f1 - f0) - 8 * (a1 + a0) + 16 * ym;
    const Real b = 5 * f0 - 3 * f1 + 18 * a0 + 14 * a1 - 32 * ym, d = f1 - 4 * f0 - 11 * a0 - 5 * a1 + 16 * ym;
    for (int64_t j = step.first[l]; j < step.last[l]; j++) {
      const Real x = place_in(step, l, j);
      o.ys[(j * batch + step.who[l]) * R + r] = a0 + x * (f0 + x * (d + x * (b + x * a)));
    }
  }
}
Real place_in(const Attempt& step, int l, int64_t output) const {  // 0 to 1
  return Real((clock[output] - step.t[l]) / ((step.t[l] + step.h[l]) - step.t[l]));
}
