// Part of Solve: adaptive steps of each sample's own. Every lane has its clock, step size and error, and a tile is
// solved from beginning to end by itself, since tiles then have nothing in common.
//
// Lanes reject at different attempts. What is kept for the gradient is sorted by each lane's own count of accepted
// steps, so that it is as long as the longest lane; in lanes that took fewer, a step has size zero and changes nothing.

struct LaneOutput { int lane; int64_t index; Real x; };
struct LaneStep {               // the n-th accepted step of every lane
  double t[TILE], h[TILE];
  std::vector<Vec> y, f;        // state and slope at its beginning
  std::vector<LaneOutput> outputs;
};
struct Stuck { int64_t attempt, sample; Status status; double t, h; };
std::vector<std::deque<LaneStep>> lane_steps;  // of each tile

struct LaneClock {  // the field's time in every lane of a tile
  Vec each[WIDTH];
  LaneClock(const Solve& s, int tile, const Real* t) {
    for (int c = 0; c < WIDTH; c++)
      for (int i = 0; i < LANES; i++)
        each[c][i] = (s.sign < 0 ? -t[c * LANES + i] : t[c * LANES + i]) + s.start[tile * WIDTH + c][i];
  }
};

void evaluate_lanes(int tile, const LaneClock& now, const Vec* state, Vec* tape, Vec* out) const {
  Net::evaluate(weights, Gates(weights, 0), now.each, probes_of(tile), state, tape, out);
  if (sign < 0)
    for (int v = 0; v < Net::STATE; v++) out[v] = -out[v];
}

// sum_i weights[i] h k[i], with a step size for each lane
static Vec combined(const double* weights, int count, const Vec* h, const std::vector<std::vector<Vec>>& k, int v) {
  Vec total = {};
  for (int i = 0; i < count; i++)
    if (weights[i] != 0) total += Real(weights[i]) * h[v % WIDTH] * k[i][v];
  return total;
}

template <class Value>
static void lane_norms(Value value, Real* norms) {  // RMS over the first rows of each lane
  for (int c = 0; c < WIDTH; c++) {
    Vec total = {};
    for (int r = 0; r < NORM_ROWS; r++) {
      const Vec e = value(r * WIDTH + c);
      total += e * e;
    }
    for (int i = 0; i < LANES; i++) norms[c * LANES + i] = std::sqrt(total[i] / Real(NORM_ROWS));
  }
}
static bool lane_finite(const std::vector<Vec>& state, int lane) {
  for (int r = 0; r < R; r++)
    if (!std::isfinite(state[r * WIDTH + lane / LANES][lane % LANES])) return false;
  return true;
}

// The stages of one attempt: k[0] is known; `at` gives the tape of evaluation i, `seen` hears its clock.
template <class At, class Seen>
void take_lanes(const Call& o, int tile, const double* t, const double* h, const Vec* hv, const std::vector<Vec>& from,
                std::vector<std::vector<Vec>>& ks, std::vector<Vec>& to, At at, Seen seen) const {
  const int stages = int(o.stages);
  for (int i = 1; i < stages; i++) {
    Real times[TILE];
    for (int l = 0; l < TILE; l++) times[l] = stage_time(o, i, t[l], h[l], t[l] + h[l]);
    for (int v = 0; v < Net::STATE; v++) to[v] = from[v] + combined(o.a + i * stages, i, hv, ks, v);
    const LaneClock now(*this, tile, times);
    evaluate_lanes(tile, now, to.data(), at(i), ks[i].data());
    seen(i, now);
  }
  if (!o.ends_in_solution)
    for (int v = 0; v < Net::STATE; v++) to[v] = from[v] + combined(o.b, stages, hv, ks, v);
}

void per_sample(Call& o) {
  lane_steps.resize(tiles);
  std::vector<int64_t> evaluations(tiles);
  std::vector<Stuck> stuck(tiles, Stuck{-1, 0, DONE, 0, 0});
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1)
  for (int tile = 0; tile < tiles; tile++) solve_lanes(o, tile, evaluations[tile], stuck[tile]);
  nfe = *std::max_element(evaluations.begin(), evaluations.end());
  const Stuck* first = nullptr;
  for (const Stuck& s : stuck)
    if (s.status != DONE && (!first || s.attempt < first->attempt)) first = &s;
  if (first) o.status = first->status, o.t = sign * first->t, o.h = first->h, o.sample = first->sample;
}

void solve_lanes(const Call& o, int tile, int64_t& evaluations, Stuck& stuck) {
  const int stages = int(o.stages);
  const bool keeps = o.keep == EVALUATIONS || o.keep == STATES;
  std::vector<Vec> y(Net::STATE), y1(Net::STATE), other(Net::STATE), tape(Net::TAPE), y0;
  std::vector<std::vector<Vec>> k(stages, std::vector<Vec>(Net::STATE));
  double t[TILE], h[TILE], step[TILE];
  int64_t next[TILE], taken[TILE] = {}, refused[TILE] = {};
  Real now[TILE], ratio[TILE];
  load(o.y0, y.data(), tile, true);
  y0 = y;
  std::fill_n(t, TILE, clock[0]), std::fill_n(now, TILE, Real(clock[0]));
  const int count = int(std::min<int64_t>(TILE, batch - int64_t(tile) * TILE));
  for (int l = 0; l < TILE; l++) next[l] = l < count ? 1 : o.times;
  evaluate_lanes(tile, LaneClock(*this, tile, now), y.data(), tape.data(), k[0].data());
  evaluations = 1;
  std::fill_n(h, TILE, o.first_step);
  if (o.first_step < 0) {
    const Real rtol = Real(o.rtol), atol = Real(o.atol);
    auto scale = [&](int v) { return atol + absolute(y[v]) * rtol; };
    Real d0[TILE], d1[TILE], d2[TILE], h0[TILE];
    lane_norms([&](int v) { return y[v] / scale(v); }, d0);
    lane_norms([&](int v) { return k[0][v] / scale(v); }, d1);
    for (int l = 0; l < TILE; l++) h0[l] = guess(d0[l], d1[l]), now[l] = Real(clock[0]) + h0[l];
    for (int v = 0; v < Net::STATE; v++)
      for (int i = 0; i < LANES; i++) y1[v][i] = y[v][i] + h0[v % WIDTH * LANES + i] * k[0][v][i];
    evaluate_lanes(tile, LaneClock(*this, tile, now), y1.data(), tape.data(), other.data());
    evaluations++;
    lane_norms([&](int v) { return (other[v] - k[0][v]) / scale(v); }, d2);
    for (int l = 0; l < TILE; l++) h[l] = second_guess(o, h0[l], d1[l], std::abs(d2[l] / h0[l]));
  }

  for (int64_t attempt = 0;; attempt++) {
    bool running = false;
    Vec hv[WIDTH];
    for (int l = 0; l < TILE; l++) {
      step[l] = 0;
      if (next[l] < o.times) {
        running = true;
        h[l] = step[l] = attempted(o, h[l]);
        Status status = DONE;
        if (taken[l] + refused[l] >= o.max_steps) status = TOO_MANY;
        else if (!(t[l] + h[l] > t[l]) || !lane_finite(y, l)) status = TOO_SMALL;
        if (status == TOO_SMALL) {
          for (int m = 0; m < TILE; m++) now[m] = Real(t[m]);
          evaluate_lanes(tile, LaneClock(*this, tile, now), y.data(), tape.data(), other.data());
          if (!lane_finite(y, l) || !lane_finite(other, l)) status = NOT_FINITE;
        }
        if (status != DONE) {
          stuck = {attempt, int64_t(tile) * TILE + l, status, t[l], h[l]};
          break;
        }
      }
      hv[l / LANES][l % LANES] = Real(step[l]);
    }
    if (!running || stuck.status != DONE) break;
    take_lanes(o, tile, t, step, hv, y, k, y1, [&](int) { return tape.data(); }, [](int, const LaneClock&) {});
    evaluations += stages - 1;
    lane_norms(
        [&](int v) {
          const Vec scale = Real(o.atol) + Real(o.rtol) * larger(absolute(y[v]), absolute(y1[v]));
          return combined(o.error, stages, hv, k, v) / scale;
        },
        ratio);
    for (int l = 0; l < count; l++) {
      if (next[l] == o.times) continue;
      if (accepted(o, h[l], ratio[l])) {
        const int c = l / LANES, i = l % LANES;
        const double end = t[l] + h[l];
        LaneStep* slot = nullptr;
        if (keeps) {
          auto& steps = lane_steps[tile];
          if (size_t(taken[l]) == steps.size()) {
            steps.push_back({{}, {}, y0, std::vector<Vec>(Net::STATE), {}});
            std::fill_n(steps.back().t, TILE, clock[0]);
          }
          slot = &steps[taken[l]];
          slot->t[l] = t[l], slot->h[l] = h[l];
          for (int v = c; v < Net::STATE; v += WIDTH) slot->y[v][i] = y[v][i], slot->f[v][i] = k[0][v][i];
        }
        for (; next[l] < o.times && clock[next[l]] <= end; next[l]++) {
          const Real x = Real((clock[next[l]] - t[l]) / (end - t[l]));
          write_lane(o, tile, l, next[l], x, hv, y, y1, k);
          if (slot) slot->outputs.push_back({l, next[l], x});
        }
        for (int v = c; v < Net::STATE; v += WIDTH) y[v][i] = y1[v][i], k[0][v][i] = k[stages - 1][v][i];
        t[l] = end;
        taken[l]++;
      } else {
        refused[l]++;
      }
      h[l] = next_step(o, h[l], ratio[l]);
    }
  }
  for (int l = 0; l < count; l++) {
    o.steps[int64_t(tile) * TILE + l] = taken[l];
    o.steps[batch + int64_t(tile) * TILE + l] = refused[l];
  }
}

// The dense output of one lane: see `interpolate`.
void write_lane(const Call& o, int tile, int l, int64_t index, Real x, const Vec* hv, const std::vector<Vec>& from,
                const std::vector<Vec>& to, const std::vector<std::vector<Vec>>& ks) {
  const int stages = int(o.stages), c = l / LANES, i = l % LANES;
  const Real h = hv[c][i];
  for (int r = 0; r < R; r++) {
    const int v = r * WIDTH + c;
    const Real a0 = from[v][i], a1 = to[v][i], f0 = h * ks[0][v][i], f1 = h * ks[stages - 1][v][i];
    Real middle = 0;
    for (int m = 0; m < stages; m++)
      if (o.middle[m] != 0) middle += Real(o.middle[m]) * h * ks[m][v][i];
    const Real ym = a0 + middle, a = 2 * (f1 - f0) - 8 * (a1 + a0) + 16 * ym;
    const Real b = 5 * f0 - 3 * f1 + 18 * a0 + 14 * a1 - 32 * ym, d = f1 - 4 * f0 - 11 * a0 - 5 * a1 + 16 * ym;
    const Real value = a0 + x * (f0 + x * (d + x * (b + x * a)));
    o.ys[(index * batch + int64_t(tile) * TILE + l) * R + r] = value;
    if (o.keep == OUTPUTS) outputs[index * size + size_t(tile) * Net::STATE + v][i] = value;
  }
}

#if NODE_GRADIENT == 1
// The gradient of the computed numbers: the stages of each step again, and back through them.
void gradient_of_lanes(const Call& o, int from_tile, int to_tile, const Real* grad_ys, Real* grad_y0, Real* grad,
                       int64_t& evaluations) {
  const int stages = int(o.stages), room = std::max(PENDING, stages);
  Net::Gathered gathered;
  std::vector<Vec> pulls(size_t(room) * Net::PULL), times(room * WIDTH), tapes(size_t(room) * Net::TAPE);
  std::vector<Net::Evaluation> list;
  std::vector<Vec> ay(Net::STATE), af(Net::STATE), a0(Net::STATE), into(Net::STATE), y1(Net::STATE), y0(Net::STATE);
  std::vector<std::vector<Vec>> ak(stages, std::vector<Vec>(Net::STATE)), k(stages, std::vector<Vec>(Net::STATE));
  std::vector<LaneClock> clocks;
  auto zero = [](std::vector<Vec>& v) { std::fill(v.begin(), v.end(), Vec{}); };
  auto flush = [&] {
    if (!list.empty()) Net::gather(list.data(), int(list.size()), grad);
    list.clear();
  };
  for (int tile = from_tile; tile < to_tile; tile++) {
    auto pull_back = [&](const LaneClock& now, const Vec* tape, std::vector<Vec>& g) {
      if (sign < 0)
        for (Vec& v : g) v = -v;
      Vec* pull = pulls.data() + list.size() * Net::PULL;
      Vec* at = std::copy_n(now.each, WIDTH, times.data() + list.size() * WIDTH) - WIDTH;
      Net::pull_back(weights, Gates(weights, 0), 0, probes_of(tile), tape, g.data(), pull, into.data(), &gathered);
      list.push_back({tape, pull, at});
    };
    int64_t counted = 1;
    zero(ay), zero(af);
    auto& steps = lane_steps[tile];
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      if (int(list.size()) + stages - 1 > room) flush();
      Vec hv[WIDTH], took[WIDTH];
      for (int l = 0; l < TILE; l++) {
        hv[l / LANES][l % LANES] = Real(step->h[l]);
        took[l / LANES][l % LANES] = step->h[l] != 0;
      }
      // Evaluations are pulled back last first, and each takes the next place of `list`.
      Vec* fresh = tapes.data() + list.size() * Net::TAPE;
      auto tape = [&](int i) { return fresh + (i - 1) * Net::TAPE; };
      clocks.clear();
      std::copy(step->f.begin(), step->f.end(), k[0].begin());
      take_lanes(o, tile, step->t, step->h, hv, step->y, k, y1, tape,
                 [&](int, const LaneClock& now) { clocks.push_back(now); });
      counted += stages - 1;

      zero(a0);
      for (auto& part : ak) zero(part);
      for (const LaneOutput& at : step->outputs) pull_lane(o, tile, at, hv, grad_ys, a0, ay, ak);
      // The slope that a lane hands on is the last stage's, or what it had where it took no step.
      for (int v = 0; v < Net::STATE; v++) {
        ak[stages - 1][v] += took[v % WIDTH] * af[v];
        ak[0][v] += (1 - took[v % WIDTH]) * af[v];
      }
      if (!o.ends_in_solution)
        for (int v = 0; v < Net::STATE; v++) {
          a0[v] += ay[v];
          for (int i = 0; i < stages; i++)
            if (o.b[i] != 0) ak[i][v] += Real(o.b[i]) * hv[v % WIDTH] * ay[v];
        }
      for (int i = stages - 1; i >= 1; i--) {
        pull_back(clocks[i - 1], tape(i), ak[i]);
        if (i == stages - 1 && o.ends_in_solution)
          for (int v = 0; v < Net::STATE; v++) into[v] += ay[v];
        for (int v = 0; v < Net::STATE; v++) a0[v] += into[v];
        for (int m = 0; m < i; m++) {
          const double a = o.a[i * stages + m];
          if (a != 0)
            for (int v = 0; v < Net::STATE; v++) ak[m][v] += Real(a) * hv[v % WIDTH] * into[v];
        }
      }
      ay.swap(a0);
      af.swap(ak[0]);
    }
    if (int(list.size()) + 1 > room) flush();
    if (steps.empty()) {
      zero(ay);  // there are no times but the first
    } else {
      Real now[TILE];
      std::fill_n(now, TILE, Real(clock[0]));
      const LaneClock begin(*this, tile, now);
      Vec* fresh = tapes.data() + list.size() * Net::TAPE;
      evaluate_lanes(tile, begin, steps.front().y.data(), fresh, k[0].data());
      pull_back(begin, fresh, af);
      for (int v = 0; v < Net::STATE; v++) ay[v] += into[v];
    }
    load(grad_ys, y0.data(), tile, false);
    for (int v = 0; v < Net::STATE; v++) ay[v] += y0[v];
    store(ay.data(), grad_y0, tile);
    flush();
    evaluations = std::max(evaluations, counted);
  }
}

// The gradient of `write_lane`: by y, y1 and every stage. See `pull_quartic`.
void pull_lane(const Call& o, int tile, const LaneOutput& at, const Vec* hv, const Real* grad_ys, std::vector<Vec>& a0,
               std::vector<Vec>& a1, std::vector<std::vector<Vec>>& ak) const {
  const int stages = int(o.stages), c = at.lane / LANES, i = at.lane % LANES;
  const Real h = hv[c][i], x = at.x, x2 = x * x, x3 = x2 * x, x4 = x2 * x2;
  const Real middle = 16 * x4 - 32 * x3 + 16 * x2;
  const Real* given = grad_ys + (at.index * batch + int64_t(tile) * TILE + at.lane) * R;
  for (int r = 0; r < R; r++) {
    const int v = r * WIDTH + c;
    const Real g = given[r];
    a0[v][i] += (1 - 8 * x4 + 18 * x3 - 11 * x2 + middle) * g;
    a1[v][i] += (-8 * x4 + 14 * x3 - 5 * x2) * g;
    ak[0][v][i] += h * (-2 * x4 + 5 * x3 - 4 * x2 + x) * g;
    ak[stages - 1][v][i] += h * (2 * x4 - 3 * x3 + x2) * g;
    for (int m = 0; m < stages; m++)
      if (o.middle[m] != 0) ak[m][v][i] += Real(o.middle[m]) * h * middle * g;
  }
}
#endif
