// Part of Solve: adaptive steps of each sample's own.
//
// Samples know nothing of each other: each is solved in a lane of one vector, with its own clock, step size and error.
// A lane whose sample has arrived takes the next one that waits, first those whose first step is the smallest, since
// they are likely to need the most; so lanes idle only while the last samples finish.
//
// Rows are one vector wide here. A tile of four vectors evaluates a sample 2 % faster and pulls it back 20 % faster,
// but has 64 lanes of float32 to keep busy: of 64 samples, none waits, and all pay for the slowest.

static_assert(WIDTH == 1);

struct OwnStep { double t, h; int64_t first; };  // an accepted step, and the first output time beyond its beginning
struct Path {                                    // of one sample: what is kept of it for the gradient
  std::vector<OwnStep> steps;
  std::vector<Real> states;                      // (steps, 2, R): state and slope at the beginning of each
};
struct Stuck { int64_t attempt, sample; Status status; double t, h; };
std::vector<Path> paths;

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
  Net::evaluate(weights, Gates(weights, 0), now, probes, state, tape, out);
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
static bool lane_finite(const std::vector<Vec>& state, int lane) {
  return std::all_of(state.begin(), state.end(), [&](const Vec& v) { return std::isfinite(v[lane]); });
}

// The stages of one attempt: k[0] is known; `seen` hears the time of each evaluation and says where its tape goes.
template <class Seen>
void take_lanes(const Call& o, const Lanes& lanes, const double* t, const double* h, const std::vector<Vec>& from,
                std::vector<std::vector<Vec>>& ks, std::vector<Vec>& to, Seen seen) const {
  const int stages = int(o.stages);
  Vec size;
  for (int l = 0; l < LANES; l++) size[l] = Real(h[l]);
  for (int i = 1; i < stages; i++) {
    Vec now = {};
    if (TIMED)
      for (int l = 0; l < LANES; l++) now[l] = stage_time(o, i, t[l], h[l], t[l] + h[l]);
    for (int r = 0; r < R; r++) to[r] = from[r] + combined(o.a + i * stages, i, size, ks, r);
    lanes.evaluate(now, to.data(), seen(i, lanes.time(now)), ks[i].data());
  }
  if (!o.ends_in_solution)
    for (int r = 0; r < R; r++) to[r] = from[r] + combined(o.b, stages, size, ks, r);
}

void per_sample(Call& o) {
  if (o.times < 2) return;
  if (o.keep == STATES || o.keep == EVALUATIONS) paths.resize(batch);
  evaluate(Real(clock[0]), y.data(), k[0].data(), scratch.data());  // y and k[0] stay: samples begin with them
  first_state = y;
  std::vector<double> first(batch, o.first_step);
  if (o.first_step < 0) first_steps(o, first);
  std::vector<int64_t> order(batch);
  for (int64_t s = 0; s < batch; s++) order[s] = s;
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return first[a] < first[b]; });

  std::atomic<int64_t> waiting(0);
  std::vector<Stuck> stuck(threads, Stuck{std::numeric_limits<int64_t>::max(), 0, DONE, 0, 0});
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int i = 0; i < threads; i++) {
    const NoSubnormals here;
    solve_lanes(o, first, order, waiting, stuck[i]);
  }
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
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int tile = 0; tile < tiles; tile++) {
    const NoSubnormals here;
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
  }
}

// Solves samples until none waits. A sample that gets stuck is remembered, the earliest of them, and others that have
// come further than it are let go.
void solve_lanes(const Call& o, const std::vector<double>& first, const std::vector<int64_t>& order,
                 std::atomic<int64_t>& waiting, Stuck& stuck) {
  const int stages = int(o.stages);
  Lanes lanes(*this);
  std::vector<Vec> from(R), to(R), other(R), tape(Net::TAPE);
  std::vector<std::vector<Vec>> ks(stages, std::vector<Vec>(R));
  double t[LANES] = {}, h[LANES] = {};
  int64_t next[LANES], taken[LANES], refused[LANES];

  auto enter = [&](int l) {  // whether there was one to enter
    const int64_t place = waiting++;
    if (place >= batch) return false;
    const int64_t s = order[place];
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
    if (!running) return;
    take_lanes(o, lanes, t, h, from, ks, to, [&](int, Vec) { return tape.data(); });
    Vec size;
    for (int l = 0; l < LANES; l++) size[l] = Real(h[l]);
    const Vec ratio = lane_norms([&](int r) {
      return combined(o.error, stages, size, ks, r) /
             (Real(o.atol) + Real(o.rtol) * larger(absolute(from[r]), absolute(to[r])));
    });
    Mask moves = {};
    for (int l = 0; l < LANES; l++) {
      if (lanes.who[l] < 0) continue;
      const double taking = h[l];
      h[l] = next_step(o, taking, ratio[l]);
      if (!accepted(o, taking, ratio[l])) {
        refused[l]++;
        continue;
      }
      moves[l] = -1;
      if (!paths.empty()) keep_step(paths[lanes.who[l]], {t[l], taking, next[l]}, l, from, ks[0]);
      const int64_t begin = next[l];
      while (next[l] < o.times && clock[next[l]] <= t[l] + taking) next[l]++;
      if (next[l] > begin) write_lane(o, lanes.who[l], l, {t[l], taking, begin}, next[l], from, to, ks);
      t[l] += taking;
      taken[l]++;
      if (next[l] == o.times) leave(l);
    }
    for (int r = 0; r < R; r++) {
      from[r] = moves ? to[r] : from[r];
      ks[0][r] = moves ? ks[stages - 1][r] : ks[0][r];
    }
  }
}

static void keep_step(Path& path, OwnStep step, int l, const std::vector<Vec>& state, const std::vector<Vec>& slope) {
  path.steps.push_back(step);
  for (int r = 0; r < R; r++) path.states.push_back(state[r][l]);
  for (int r = 0; r < R; r++) path.states.push_back(slope[r][l]);
}

// The dense output of one lane, see `interpolate`: the output times of a step up to `last`.
void write_lane(const Call& o, int64_t who, int l, OwnStep step, int64_t last, const std::vector<Vec>& from,
                const std::vector<Vec>& to, const std::vector<std::vector<Vec>>& ks) const {
  const int stages = int(o.stages);
  const Real h = Real(step.h);
  for (int r = 0; r < R; r++) {
    const Real a0 = from[r][l], a1 = to[r][l], f0 = h * ks[0][r][l], f1 = h * ks[stages - 1][r][l];
    Real middle = 0;
    for (int m = 0; m < stages; m++)
      if (o.middle[m] != 0) middle += Real(o.middle[m]) * h * ks[m][r][l];
    const Real ym = a0 + middle, a = 2 * (f1 - f0) - 8 * (a1 + a0) + 16 * ym;
    const Real b = 5 * f0 - 3 * f1 + 18 * a0 + 14 * a1 - 32 * ym, d = f1 - 4 * f0 - 11 * a0 - 5 * a1 + 16 * ym;
    for (int64_t j = step.first; j < last; j++) {
      const Real x = place_in(step, j);
      o.ys[(j * batch + who) * R + r] = a0 + x * (f0 + x * (d + x * (b + x * a)));
    }
  }
}
Real place_in(OwnStep step, int64_t output) const {  // 0 to 1
  return Real((clock[output] - step.t) / ((step.t + step.h) - step.t));
}
