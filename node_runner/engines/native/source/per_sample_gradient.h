// Part of Solve: the gradient of the computed numbers where each sample has taken steps of its own. Each thread goes
// back through the attempts that it has kept. A lane where nobody accepted one hands its gradient on.

static constexpr int PENDING = 48;  // evaluations whose outer products are formed together, see discrete.h

void gradient(Call& o, const Real* grad_ys, Real* grad_y0, Real* grad) {
  // By the first slope of each sample, and in grad_y0 by its first state, as far as they are known.
  std::vector<Real> by_slope(size_t(batch) * R);
  std::fill_n(grad_y0, batch * R, Real(0));
  std::vector<std::vector<Real>> parts(threads, std::vector<Real>(PARAMETERS));
  on_threads([&](int i) {
    if (o.times > 1) pull_attempts(o, attempts[i], grad_ys, grad_y0, by_slope.data(), parts[i].data());
  });
  on_threads([&](int i) {
    pull_beginnings(o, first_tile(i), first_tile(i + 1), grad_ys, grad_y0, by_slope.data(), parts[i].data());
  });
  if (o.keep == STATES) nfe += 1 + *std::max_element(o.steps, o.steps + batch) * (o.stages - 1);
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

  Pending(const Solve& s, int room, bool recomputes, Real* grad)
      : solve(s), room(room), grad(grad), pulls(size_t(room) * Net::PULL), times(room),
        tapes(recomputes ? size_t(room) * Net::TAPE : 0) {}

  void form() {
    if (!list.empty()) Net::gather(list.data(), int(list.size()), grad);
    list.clear();
  }
  void finish() {
    form();
    Net::gather_gates(gathered, grad);
  }
  void make_room(int evaluations) {
    if (int(list.size()) + evaluations > room) form();
  }
  // Room for the tapes of evaluations that come next: they are pulled back last first, each takes the next place.
  Vec* next_tapes() { return tapes.data() + list.size() * Net::TAPE; }

  // Pulls `g`, the gradient of one evaluation's result, back to its state, which is left in `into`.
  void pull_back(Vec now, const Vec* probes, const Vec* tape, std::vector<Vec>& g, std::vector<Vec>& into) {
    if (solve.sign < 0)
      for (Vec& v : g) v = -v;
    const size_t place = list.size();
    times[place] = now;
    Vec* pull = pulls.data() + place * Net::PULL;
    const Gates gates(solve.weights, now);
    Net::pull_back(solve.weights, gates, now, probes, tape, g.data(), pull, into.data(), &gathered);
    list.push_back({tape, pull, &times[place]});
  }
};

// Tapes of adjoint=off come from main memory: each is asked for one evaluation before it is needed.
static void fetch(const Vec* tape) {
  for (int v = 0; v < Net::TAPE; v += 64 / BYTES) __builtin_prefetch(tape + v, 0, 2);
}

// From the last attempt of a thread to the first.
void pull_attempts(const Call& o, const std::deque<Attempt>& log, const Real* grad_ys, Real* grad_y0, Real* by_slope,
                   Real* grad) const {
  const int stages = int(o.stages);
  Pending pending(*this, std::max(int(PENDING), stages), o.keep == STATES, grad);  // by value, see discrete.h
  Lanes lanes(*this);
  std::vector<Vec> ay(R), af(R), a0(R), into(R), from(R), to(R);
  std::vector<std::vector<Vec>> ak(stages, std::vector<Vec>(R)), ks(stages, std::vector<Vec>(R));
  auto leave = [&](int l) {
    if (lanes.who[l] < 0) return;
    for (int r = 0; r < R; r++) {
      grad_y0[lanes.who[l] * R + r] = ay[r][l], by_slope[lanes.who[l] * R + r] = af[r][l];
      ay[r][l] = af[r][l] = 0;
    }
  };
  for (auto step = log.rbegin(); step != log.rend(); ++step) {
    Vec took = {};
    for (int l = 0; l < LANES; l++) {
      if (step->who[l] < 0) continue;
      took[l] = 1;
      if (step->who[l] == lanes.who[l]) continue;
      leave(l);
      lanes.enter(l, step->who[l]);
    }
    pending.make_room(stages - 1);
    const Vec* tapes = step->kept.data();
    if (o.keep == STATES) {
      Vec* fresh = pending.next_tapes();
      from.assign(tapes, tapes + R), ks[0].assign(tapes + R, tapes + 2 * R);
      take_lanes(o, lanes, step->t, step->h, from, ks, to, fresh, Net::TAPE);
      tapes = fresh;
    }
    std::fill(a0.begin(), a0.end(), Vec{});
    for (auto& part : ak) std::fill(part.begin(), part.end(), Vec{});
    for (int l = 0; l < LANES; l++)
      if (step->who[l] >= 0) pull_lane(o, *step, l, grad_ys, a0, ay, ak);
    for (int r = 0; r < R; r++) {
      ak[stages - 1][r] += took * af[r];
      ak[0][r] += (1 - took) * af[r];
    }
    const Vec size = sizes(step->h);
    if (!o.ends_in_solution)
      for (int r = 0; r < R; r++) {
        a0[r] += ay[r];
        for (int i = 0; i < stages; i++)
          if (o.b[i] != 0) ak[i][r] += Real(o.b[i]) * size * ay[r];
      }
    const auto before = step + 1;
    for (int i = stages - 1; i >= 1; i--) {
      if (o.keep == EVALUATIONS && i > 1) fetch(tapes + (i - 2) * Net::TAPE);
      else if (o.keep == EVALUATIONS && before != log.rend()) fetch(before->kept.data() + (stages - 2) * Net::TAPE);
      const Vec now = lanes.time(stage_times(o, i, step->t, step->h));
      pending.pull_back(now, lanes.probes.data(), tapes + (i - 1) * Net::TAPE, ak[i], into);
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
  for (int l = 0; l < LANES; l++) leave(l);
  pending.finish();
}

// Through the first slopes to the initial states.
void pull_beginnings(const Call& o, int from, int to, const Real* grad_ys, Real* grad_y0, const Real* by_slope,
                     Real* grad) const {
  Pending pending(*this, PENDING, o.keep == STATES, grad);
  std::vector<Vec> g(R), slope(R), total(R), given(R), into(R);
  for (int tile = from; tile < to; tile++) {
    load(grad_y0, total.data(), tile, false);
    load(grad_ys, given.data(), tile, false);
    if (o.times > 1) {
      pending.make_room(1);
      load(by_slope, g.data(), tile, false);
      const Vec at = splat(Real(clock[0])), now = (sign < 0 ? -at : at) + start[tile];
      const Vec* tape = first_tape.data() + size_t(tile) * Net::TAPE;
      if (o.keep == STATES) {
        Vec* fresh = pending.next_tapes();
        evaluate_lanes(&now, probes_of(tile), first_state.data() + size_t(tile) * R, fresh, slope.data());
        tape = fresh;
      }
      pending.pull_back(now, probes_of(tile), tape, g, into);
      for (int r = 0; r < R; r++) total[r] += into[r];
    }
    for (int r = 0; r < R; r++) total[r] += given[r];
    store(total.data(), grad_y0, tile);
  }
  pending.finish();
}

// The gradient of `write_lane`: by y, y1 and every stage. See `pull_quartic`.
void pull_lane(const Call& o, const Attempt& step, int l, const Real* grad_ys, std::vector<Vec>& a0,
               std::vector<Vec>& a1, std::vector<std::vector<Vec>>& ak) const {
  const int stages = int(o.stages);
  const Real h = Real(step.h[l]);
  for (int64_t j = step.first[l]; j < step.last[l]; j++) {
    const Real x = place_in(step, l, j), x2 = x * x, x3 = x2 * x, x4 = x2 * x2;
    const Real middle = 16 * x4 - 32 * x3 + 16 * x2;
    const Real* given = grad_ys + (j * batch + step.who[l]) * R;
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
}
