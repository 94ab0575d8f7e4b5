// Part of Solve: the gradient of the computed numbers where each sample has taken steps of its own. The accepted steps
// are evaluated again and pulled back, from the last to the first, and lanes take new samples as in the forward solve;
// how many steps each has is known by now, so that the longest begin.

static constexpr int PENDING = 48;  // evaluations whose outer products are formed together, see discrete.h

void gradient(Call& o, const Real* grad_ys, Real* grad_y0, Real* grad) {
  if (paths.empty()) paths.resize(batch);  // there are no times but the first
  std::vector<int64_t> order(batch);
  for (int64_t s = 0; s < batch; s++) order[s] = s;
  auto length = [&](int64_t s) { return paths[s].steps.size(); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  // By the first slope of each sample, and in grad_y0 by its first state.
  std::vector<Real> by_slope(size_t(batch) * R);
  std::vector<std::vector<Real>> parts(threads, std::vector<Real>(PARAMETERS));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int i = 0; i < threads; i++) {
    const NoSubnormals here;
    pull_paths(o, i, order, grad_ys, grad_y0, by_slope.data(), parts[i].data());
  }
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (int i = 0; i < threads; i++) {
    const NoSubnormals here;
    pull_beginnings(first_tile(i), first_tile(i + 1), grad_ys, grad_y0, by_slope.data(), parts[i].data());
  }
  nfe += 1 + int64_t(length(order[0])) * (o.stages - 1);
  for (const auto& part : parts)
    for (int p = 0; p < PARAMETERS; p++) grad[p] += part[p];
}

// Evaluations that were pulled back and whose outer products are still to be formed.
struct Pending {
  const Solve& solve;
  const int room;
  Real* grad;
  std::vector<Vec> pulls, times, tapes;
  std::vector<Net::Evaluation> list;
  Net::Gathered gathered;

  Pending(const Solve& s, int room, Real* grad)
      : solve(s), room(room), grad(grad), pulls(size_t(room) * Net::PULL), times(room), tapes(size_t(room) * Net::TAPE) {}

  void make_room(int evaluations) {
    if (int(list.size()) + evaluations <= room) return;
    Net::gather(list.data(), int(list.size()), grad);
    list.clear();
  }
  Vec* tape(int i) { return tapes.data() + (list.size() + i) * Net::TAPE; }  // of the evaluation i places ahead

  // Pulls `g`, the gradient of one evaluation's result, back to its state, which is left in `into`.
  void pull_back(Vec time, const Vec* probes, const Vec* tape, std::vector<Vec>& g, std::vector<Vec>& into) {
    if (solve.sign < 0)
      for (Vec& v : g) v = -v;
    Vec* pull = pulls.data() + list.size() * Net::PULL;
    times[list.size()] = time;
    Net::pull_back(solve.weights, Gates(solve.weights, 0), 0, probes, tape, g.data(), pull, into.data(), &gathered);
    list.push_back({tape, pull, &times[list.size()]});
  }
};

// The samples of one thread, always the same ones, to their first state and slope.
void pull_paths(const Call& o, int thread, const std::vector<int64_t>& order, const Real* grad_ys, Real* grad_y0,
                Real* by_slope, Real* grad) const {
  const int stages = int(o.stages);
  Pending pending(*this, std::max(PENDING, stages), grad);
  Lanes lanes(*this);
  std::vector<Vec> ay(R), af(R), a0(R), into(R), from(R), to(R), stage_times(stages);
  std::vector<std::vector<Vec>> ak(stages, std::vector<Vec>(R)), ks(stages, std::vector<Vec>(R));
  double t[LANES] = {}, h[LANES] = {};
  int64_t left[LANES] = {}, next[LANES] = {}, waiting = thread;  // steps, output times up to them

  for (;;) {
    bool running = false;
    Vec size;
    for (int l = 0; l < LANES; l++) {
      if (left[l] == 0 && lanes.who[l] >= 0) {
        for (int r = 0; r < R; r++) {
          grad_y0[lanes.who[l] * R + r] = ay[r][l], by_slope[lanes.who[l] * R + r] = af[r][l];
          ay[r][l] = af[r][l] = 0;
        }
        lanes.who[l] = -1, h[l] = 0;
      }
      if (lanes.who[l] < 0 && waiting < batch) {
        lanes.enter(l, order[waiting]);
        waiting += threads;
        left[l] = int64_t(paths[lanes.who[l]].steps.size()), next[l] = o.times;
      }
      if (left[l] > 0) {
        running = true;
        const Path& path = paths[lanes.who[l]];
        const Real* state = path.states.data() + --left[l] * 2 * R;
        t[l] = path.steps[left[l]].t, h[l] = path.steps[left[l]].h;
        for (int r = 0; r < R; r++) from[r][l] = state[r], ks[0][r][l] = state[R + r];
      }
      size[l] = Real(h[l]);
    }
    if (!running) break;

    pending.make_room(stages - 1);
    // Evaluations are pulled back last first, and each takes the next place of `pending`.
    Vec* fresh = pending.tape(0);
    take_lanes(o, lanes, t, h, from, ks, to, [&](int i, Vec now) {
      stage_times[i] = now;
      return fresh + (i - 1) * Net::TAPE;
    });
    std::fill(a0.begin(), a0.end(), Vec{});
    for (auto& part : ak) std::fill(part.begin(), part.end(), Vec{});
    for (int l = 0; l < LANES; l++)
      if (h[l] != 0) {
        const OwnStep& step = paths[lanes.who[l]].steps[left[l]];
        for (int64_t j = step.first; j < next[l]; j++) pull_lane(o, lanes.who[l], l, step, j, grad_ys, a0, ay, ak);
        next[l] = step.first;
      }
    for (int r = 0; r < R; r++) ak[stages - 1][r] += af[r];
    if (!o.ends_in_solution)
      for (int r = 0; r < R; r++) {
        a0[r] += ay[r];
        for (int i = 0; i < stages; i++)
          if (o.b[i] != 0) ak[i][r] += Real(o.b[i]) * size * ay[r];
      }
    for (int i = stages - 1; i >= 1; i--) {
      pending.pull_back(stage_times[i], lanes.probes.data(), fresh + (i - 1) * Net::TAPE, ak[i], into);
      if (i == stages - 1 && o.ends_in_solution)
        for (int r = 0; r < R; r++) into[r] += ay[r];
      for (int r = 0; r < R; r++) a0[r] += into[r];
      for (int m = 0; m < i; m++) {
        const double a = o.a[i * stages + m];
        if (a != 0)
          for (int r = 0; r < R; r++) ak[m][r] += Real(a) * size * into[r];
      }
    }
    ay.swap(a0);
    af.swap(ak[0]);
  }
  pending.make_room(pending.room + 1);
}

// Through the first slopes to the initial states.
void pull_beginnings(int from, int to, const Real* grad_ys, Real* grad_y0, const Real* by_slope, Real* grad) const {
  Pending pending(*this, PENDING, grad);
  std::vector<Vec> g(R), slope(R), total(R), given(R), into(R);
  for (int tile = from; tile < to; tile++) {
    pending.make_room(1);
    Vec* tape = pending.tape(0);
    const Vec at = splat(Real(clock[0])), now = (sign < 0 ? -at : at) + start[tile];
    evaluate_lanes(&now, probes_of(tile), first_state.data() + size_t(tile) * R, tape, slope.data());
    load(by_slope, g.data(), tile, false);
    load(grad_y0, total.data(), tile, false);
    load(grad_ys, given.data(), tile, false);
    pending.pull_back(now, probes_of(tile), tape, g, into);
    for (int r = 0; r < R; r++) total[r] += into[r] + given[r];
    store(total.data(), grad_y0, tile);
  }
  pending.make_room(pending.room + 1);
}

// The gradient of `write_lane`: by y, y1 and every stage. See `pull_quartic`.
void pull_lane(const Call& o, int64_t who, int l, OwnStep step, int64_t output, const Real* grad_ys,
               std::vector<Vec>& a0, std::vector<Vec>& a1, std::vector<std::vector<Vec>>& ak) const {
  const int stages = int(o.stages);
  const Real h = Real(step.h), x = place_in(step, output), x2 = x * x, x3 = x2 * x, x4 = x2 * x2;
  const Real middle = 16 * x4 - 32 * x3 + 16 * x2;
  const Real* given = grad_ys + (output * batch + who) * R;
  for (int r = 0; r < R; r++) {
    const Real g = given[r];
    a0[r][l] += (1 - 8 * x4 + 18 * x3 - 11 * x2 + middle) * g;
    a1[r][l] += (-8 * x4 + 14 * x3 - 5 * x2) * g;
    ak[0][r][l] += h * (-2 * x4 + 5 * x3 - 4 * x2 + x) * g;
    ak[stages - 1][r][l] += h * (2 * x4 - 3 * x3 + x2) * g;
    for (int m = 0; m < stages; m++)
      if (o.middle[m] != 0) ak[m][r][l] += Real(o.middle[m]) * h * middle * g;
  }
}
