// Part of Solve: the gradient of the computed numbers, one tile after the other, from the last step to the first.

// Evaluations whose outer products are formed together, which pays for the sum over a vector's lanes at their end.
static constexpr int PENDING = std::max(2, 48 / Net::C);

void gradient(Call& o, const Real* grad_ys, Real* grad_y0, Real* grad) {
  std::vector<std::vector<Real>> parts(threads, std::vector<Real>(PARAMETERS));
  on_threads([&](int i) {
    gradient_of_tiles(o, first_tile(i), first_tile(i + 1), grad_ys, grad_y0, parts[i].data());
  });
  for (const auto& part : parts)
    for (int p = 0; p < PARAMETERS; p++) grad[p] += part[p];
}

void gradient_of_tiles(Call& o, int from, int to, const Real* grad_ys, Real* grad_y0, Real* grad) {
  Net::Gathered gathered;
  const int stages = int(o.stages), first = o.adaptive ? 1 : 0, evaluations = stages - first;
  // By value: a static member that something refers to is one for all libraries of a process.
  const int room = std::max(int(PENDING), evaluations + 2);
  std::vector<Vec> pulls(size_t(room) * Net::PULL), times(room * WIDTH), tapes;
  if (o.keep == STATES) tapes.resize(size_t(room) * Net::TAPE);
  std::vector<Net::Evaluation> list;
  std::vector<Vec> ay(Net::STATE), af(Net::STATE), a0(Net::STATE), into(Net::STATE), given(Net::STATE);
  std::vector<std::vector<Vec>> ak(stages, std::vector<Vec>(Net::STATE)), kt(stages, std::vector<Vec>(Net::STATE));

  auto flush = [&] {
    if (!list.empty()) Net::gather(list.data(), int(list.size()), grad);
    list.clear();
  };
  for (int tile = from; tile < to; tile++) {
    auto zero = [](std::vector<Vec>& v) { std::fill(v.begin(), v.end(), Vec{}); };
    // Pulls `g`, the gradient of one evaluation's result, back to its state, which is left in `into`.
    auto pull_back = [&](Real t, const Vec* tape, std::vector<Vec>& g) {
      const Real time = sign < 0 ? -t : t;
      if (sign < 0)
        for (Vec& v : g) v = -v;
      Gates gates(weights, time);
      Vec* pull = pulls.data() + list.size() * Net::PULL;
      Clock now(*this, time, tile);
      Vec* at = std::copy_n(now.each, WIDTH, times.data() + list.size() * WIDTH) - WIDTH;
      Net::pull_back(weights, gates, time, probes_of(tile), tape, g.data(), pull, into.data(), &gathered);
      list.push_back({tape, pull, at});
    };
    auto evaluate_again = [&](Real t, const Vec* state, Vec* tape, Vec* out) {
      const Real time = sign < 0 ? -t : t;
      evaluate_tile(sign, Gates(weights, time), time, tile, state, tape, out);
      if (tile == 0) nfe++;
    };
    zero(ay), zero(af);
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      const Real h = Real(step->h);
      const bool more = !o.adaptive && o.cubic && !step->outputs.empty();
      if (int(list.size()) + evaluations + 2 > room) flush();
      const Vec* kept = nullptr;  // the tape of evaluation i is at kept + i * stride
      size_t stride = 0;
      if (o.keep == EVALUATIONS) {
        kept = step->kept.data() + size_t(tile) * Net::TAPE;
        stride = size_t(tiles) * Net::TAPE;
      } else {
        Vec* fresh = tapes.data() + list.size() * Net::TAPE;
        recompute(o, *step, tile, first, more, fresh, kt, evaluate_again);
        // Evaluations are pulled back last first, and each takes the next place of `list`: the tapes stay
        // where they are until the list is worked off.
        kept = fresh;
        stride = Net::TAPE;
      }

      zero(a0);
      for (auto& part : ak) zero(part);
      for (const Output& at : step->outputs) {
        load(grad_ys + at.index * batch * R, given.data(), tile, false);
        if (o.adaptive) pull_quartic(o, at.x, h, given, a0, ay, ak);
        else pull_blend(o, at.x, h, given, a0, ay, ak[0], af);
      }
      if (more) {  // af holds the gradient of the slope at the end
        pull_back(Real(step->end), kept + evaluations * stride, af);
        for (int v = 0; v < Net::STATE; v++) ay[v] += into[v];
      }
      if (o.adaptive)
        for (int v = 0; v < Net::STATE; v++) ak[stages - 1][v] += af[v];
      if (!o.ends_in_solution) {
        for (int v = 0; v < Net::STATE; v++) a0[v] += ay[v];
        for (int i = 0; i < stages; i++)
          if (o.b[i] != 0)
            for (int v = 0; v < Net::STATE; v++) ak[i][v] += Real(o.b[i]) * h * ay[v];
      }
      for (int i = stages - 1; i >= first; i--) {
        pull_back(stage_time(o, i, step->t, step->h, step->end), kept + (i - first) * stride, ak[i]);
        if (i == stages - 1 && o.ends_in_solution)
          for (int v = 0; v < Net::STATE; v++) into[v] += ay[v];
        for (int v = 0; v < Net::STATE; v++) a0[v] += into[v];
        for (int m = 0; m < i; m++) {
          const double a = o.a[i * stages + m];
          if (a != 0)
            for (int v = 0; v < Net::STATE; v++) ak[m][v] += Real(a) * h * into[v];
        }
      }
      ay.swap(a0);
      if (o.adaptive) af.swap(ak[0]);
      else zero(af);
    }
    if (o.adaptive) {
      if (int(list.size()) + 1 > room) flush();
      const Vec* tape = first_tape.data() + size_t(tile) * Net::TAPE;
      if (o.keep == STATES) {
        Vec* fresh = tapes.data() + list.size() * Net::TAPE;
        evaluate_again(Real(clock[0]), first_state.data() + size_t(tile) * Net::STATE, fresh, into.data());
        tape = fresh;
      }
      pull_back(Real(clock[0]), tape, af);
      for (int v = 0; v < Net::STATE; v++) ay[v] += into[v];
    }
    load(grad_ys, given.data(), tile, false);
    for (int v = 0; v < Net::STATE; v++) ay[v] += given[v];
    store(ay.data(), grad_y0, tile);
    flush();
  }
  Net::gather_gates(gathered, grad);
}

// The stages of a step of one tile again, from its state: fills one tape an evaluation.
template <class Evaluate>
void recompute(const Call& o, const Step& step, int tile, int first, bool more, Vec* fresh,
               std::vector<std::vector<Vec>>& kt, Evaluate evaluate_again) {
  const Vec* y0 = step.kept.data() + size_t(tile) * Net::STATE;
  Vec now[Net::STATE];
  if (first) std::copy_n(y0 + size, Net::STATE, kt[0].data());
  for (int i = first; i < o.stages; i++) {
    Combination mix(o.a + i * o.stages, i, Real(step.h), kt.data());
    for (int v = 0; v < Net::STATE; v++) now[v] = y0[v] + mix.at(v);
    evaluate_again(stage_time(o, i, step.t, step.h, step.end), now, fresh + (i - first) * Net::TAPE, kt[i].data());
  }
  if (more) {
    Combination mix(o.b, int(o.stages), Real(step.h), kt.data());
    for (int v = 0; v < Net::STATE; v++) now[v] = y0[v] + mix.at(v);
    Vec slope[Net::STATE];
    evaluate_again(Real(step.end), now, fresh + (o.stages - first) * Net::TAPE, slope);
  }
}

// The gradient of `interpolate`: by y, y1 and every stage.
void pull_quartic(const Call& o, Real x, Real h, const std::vector<Vec>& given, std::vector<Vec>& a0,
                  std::vector<Vec>& a1, std::vector<std::vector<Vec>>& ak) const {
  const Real x2 = x * x, x3 = x2 * x, x4 = x2 * x2;
  const Real middle = 16 * x4 - 32 * x3 + 16 * x2;
  const Real by_y0 = 1 - 8 * x4 + 18 * x3 - 11 * x2 + middle, by_y1 = -8 * x4 + 14 * x3 - 5 * x2;
  const Real by_f0 = h * (-2 * x4 + 5 * x3 - 4 * x2 + x), by_f1 = h * (2 * x4 - 3 * x3 + x2);
  const int stages = int(o.stages);
  for (int v = 0; v < Net::STATE; v++) {
    const Vec g = given[v];
    a0[v] += by_y0 * g;
    a1[v] += by_y1 * g;
    ak[0][v] += by_f0 * g;
    ak[stages - 1][v] += by_f1 * g;
  }
  for (int i = 0; i < stages; i++)
    if (o.middle[i] != 0)
      for (int v = 0; v < Net::STATE; v++) ak[i][v] += Real(o.middle[i]) * h * middle * given[v];
}

void pull_blend(const Call& o, Real x, Real h, const std::vector<Vec>& given, std::vector<Vec>& a0,
                std::vector<Vec>& a1, std::vector<Vec>& by_f0, std::vector<Vec>& by_f1) const {
  const Blend w = blend(o, x, h);
  for (int v = 0; v < Net::STATE; v++) {
    a0[v] += w.y0 * given[v];
    a1[v] += w.y1 * given[v];
    if (o.cubic) {
      by_f0[v] += w.f0 * given[v];
      by_f1[v] += w.f1 * given[v];
    }
  }
}
