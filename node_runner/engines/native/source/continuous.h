// Part of Solve: the continuous adjoint. Between two output times the state y, its adjoint a, the gradient of the
// parameters and that of the time are solved backward together:
//
//   dy/dt = f, da/dt = -a df/dy, dg/dt = -a df/dtheta, and -a df/dt for the time
//
// (Chen et al. 2018, appendix B). Each interval starts from the forward solve's own state, as torchdiffeq does it.

struct Augmented {
  std::vector<Vec> y, a;
  std::vector<Real> theta;
  Real time = 0;
  explicit Augmented(size_t size) : y(size), a(size), theta(PARAMETERS) {}
  bool finite(const Solve& solve) const {
    Real zero = time * 0;
    for (Real v : theta) zero += v * 0;
    return zero == 0 && solve.finite(y) && solve.finite(a);
  }
};

// d/du of everything at the backward clock u, which runs against the forward solve's.
void slope(Real u, const std::vector<Vec>& at_y, const std::vector<Vec>& at_a, Augmented& out,
           std::vector<Vec>& pulls) {
  const double direction = -sign;  // of the field's time along u
  const Real t = direction < 0 ? -u : u;
  Gates gates(weights, moment(t));
  std::vector<std::vector<Real>> parts(threads, std::vector<Real>(PARAMETERS));
  std::vector<Real> time_parts(threads);
  on_threads([&](int i) {
    Net::Gathered gathered;
    std::vector<Net::Evaluation> list;
    std::vector<Vec> times(tiles * WIDTH);
    Vec grad[Net::STATE];
    for (int tile = first_tile(i); tile < first_tile(i + 1); tile++) {
      const size_t from = size_t(tile) * Net::STATE;
      Vec* tape = scratch.data() + size_t(tile) * Net::TAPE;
      Vec* pull = pulls.data() + size_t(tile) * Net::PULL;
      evaluate_tile(direction, gates, t, tile, at_y.data() + from, tape, out.y.data() + from);
      for (int v = 0; v < Net::STATE; v++) grad[v] = direction < 0 ? at_a[from + v] : -at_a[from + v];
      Net::pull_back(weights, gates, moment(t), probes_of(tile), tape, grad, pull, out.a.data() + from, &gathered);
      Clock now(*this, t, tile);
      std::copy_n(now.each, WIDTH, times.data() + tile * WIDTH);
      list.push_back({tape, pull, times.data() + tile * WIDTH});
    }
    Net::gather(list.data(), int(list.size()), parts[i].data());
    Net::gather_gates(gathered, parts[i].data());
    time_parts[i] = sum(gathered.time);
  });
  out.theta.swap(parts[0]);
  out.time = time_parts[0];
  for (int i = 1; i < threads; i++) {
    out.time += time_parts[i];
    for (int p = 0; p < PARAMETERS; p++) out.theta[p] += parts[i][p];
  }
  nfe++;
}

// The largest RMS of the parts of `value(z) / scale(z0, z1)`; a seminorm leaves the parameters' parts out.
template <class Vectors, class Numbers>
Real mixed_norm(const Call& o, Vectors vectors, Numbers numbers) {
  Real most = std::abs(numbers(-1));
  auto take = [&](Real x) { most = std::isnan(x) || x > most ? x : most; };
  for (int which = 0; which < 2; which++) {
    for (size_t v = 0; v < size; v++) stage[v] = vectors(which, v);
    take(norm(stage.data()));
  }
  if (!o.seminorm)
    for (int l = 0; l < L; l++) {
      const int ends[] = {weight_at(l), bias_at(l), gate_at(l, 0), gate_at(l, 1), gate_at(l, 2), gate_at(l, 3)};
      for (int i = 0; i < (GATED ? 5 : 2); i++) {
        if (ends[i + 1] == ends[i]) continue;  // no bias
        Real total = 0;
        for (int p = ends[i]; p < ends[i + 1]; p++) {
          Real e = numbers(p);
          total += e * e;
        }
        take(std::sqrt(total / Real(ends[i + 1] - ends[i])));
      }
    }
  return most;
}

void gradient(Call& o, const Real* grad_ys, Real* grad_y0, Real* grad) {
  const int stages = int(o.stages);
  Augmented z(size), z1(size);
  std::vector<Augmented> ks(stages, Augmented(size));
  std::vector<Vec> pulls(size_t(tiles) * Net::PULL), given(Net::STATE), at_y(size), at_a(size);
  Call back = o;
  back.rtol = o.adjoint_rtol, back.atol = o.adjoint_atol;
  back.accepted = back.rejected = 0;

  auto add_given = [&](int64_t index) {
    for (int tile = 0; tile < tiles; tile++) {
      load(grad_ys + index * batch * R, given.data(), tile, false);
      for (int v = 0; v < Net::STATE; v++) z.a[size_t(tile) * Net::STATE + v] += given[v];
    }
  };
  auto number = [&](const Augmented& part, int p) { return p < 0 ? part.time : part.theta[p]; };
  // part = begin + sum_i weights[i] h ks[i]
  auto combine = [&](const double* weight, int count, Real h, const Augmented& begin, Augmented& into, bool numbers) {
    int used[16], n = 0;
    Real w[16];
    for (int i = 0; i < count; i++)
      if (weight[i] != 0) w[n] = Real(weight[i]) * h, used[n++] = i;
    for (size_t v = 0; v < size; v++) {
      Vec y_sum = {}, a_sum = {};
      for (int m = 0; m < n; m++) y_sum += w[m] * ks[used[m]].y[v], a_sum += w[m] * ks[used[m]].a[v];
      into.y[v] = begin.y[v] + y_sum, into.a[v] = begin.a[v] + a_sum;
    }
    if (!numbers) return;
    into.time = begin.time;
    into.theta = begin.theta;
    for (int m = 0; m < n; m++) {
      into.time += w[m] * ks[used[m]].time;
      for (int p = 0; p < PARAMETERS; p++) into.theta[p] += w[m] * ks[used[m]].theta[p];
    }
  };
  auto take_step = [&](double u, double h, double end, bool known) {
    for (int i = known ? 1 : 0; i < stages; i++) {
      const bool last = i + 1 == stages && o.ends_in_solution;
      combine(o.a + i * stages, i, Real(h), z, z1, last);
      slope(stage_time(back, i, u, h, end), z1.y, z1.a, ks[i], pulls);
    }
    if (!o.ends_in_solution) combine(o.b, stages, Real(h), z, z1, true);
  };
  auto scaled = [&](auto value, auto number_value, const Augmented& other) {
    const Real rtol = Real(back.rtol), atol = Real(back.atol);
    return mixed_norm(
        back,
        [&](int which, size_t v) {
          const auto& mine = which ? z.a : z.y;
          const auto& theirs = which ? other.a : other.y;
          return value(which, v) / (atol + rtol * larger(absolute(mine[v]), absolute(theirs[v])));
        },
        [&](int p) {
          Real most = std::max(std::abs(number(z, p)), std::abs(number(other, p)));
          return number_value(p) / (atol + rtol * most);
        });
  };
  auto error = [&](double h) {
    auto e = [&](auto part) {
      auto total = part(0) * Real(0);
      for (int i = 0; i < stages; i++)
        if (o.error[i] != 0) total += Real(o.error[i]) * Real(h) * part(i);
      return total;
    };
    return scaled([&](int which, size_t v) { return e([&](int i) { return which ? ks[i].a[v] : ks[i].y[v]; }); },
                  [&](int p) { return e([&](int i) { return number(ks[i], p); }); }, z1);
  };
  auto guess = [&](double u) {
    auto size_of = [&](const Augmented& part) {
      return scaled([&](int which, size_t v) { return which ? part.a[v] : part.y[v]; },
                    [&](int p) { return number(part, p); }, z);
    };
    const Real d0 = size_of(z), d1 = size_of(ks[0]);
    return first_step(back, d0, d1, [&](Real h0) {
      for (size_t v = 0; v < size; v++) at_y[v] = z.y[v] + h0 * ks[0].y[v], at_a[v] = z.a[v] + h0 * ks[0].a[v];
      slope(Real(u) + h0, at_y, at_a, ks[1], pulls);
      return scaled(
          [&](int which, size_t v) { return which ? ks[1].a[v] - ks[0].a[v] : ks[1].y[v] - ks[0].y[v]; },
          [&](int p) { return number(ks[1], p) - number(ks[0], p); }, z);
    });
  };
  auto fail = [&](double u, double h, Status status) {
    o.t = -sign * u, o.h = h;
    o.accepted_backward = back.accepted, o.rejected_backward = back.rejected;
    if (status == TOO_SMALL) {
      slope(Real(u), z.y, z.a, ks[0], pulls);
      nfe--;
      if (!z.finite(*this) || !ks[0].finite(*this)) status = NOT_FINITE;
    }
    o.status = status;
  };

  add_given(o.times - 1);
  for (int64_t i = o.times - 1; i > 0; i--) {
    std::copy_n(outputs.data() + size_t(i) * size, size, z.y.data());
    const double ends[] = {-clock[i], -clock[i - 1]};
    if (o.adaptive) {
      double u = ends[0];
      slope(Real(u), z.y, z.a, ks[0], pulls);
      double h = o.first_step >= 0 ? o.first_step : guess(u);
      for (int64_t attempts = 0;; attempts++) {
        h = attempted(back, h);
        if (attempts >= o.max_steps) return fail(u, h, TOO_MANY);
        if (!(u + h > u) || !z.finite(*this)) return fail(u, h, TOO_SMALL);
        const double end = u + h;
        take_step(u, h, end, true);
        const Real ratio = error(h);
        const double next = next_step(back, h, ratio);
        if (accepted(back, h, ratio)) {
          back.accepted++;
          if (ends[1] <= end) {
            arrive(o, Real((ends[1] - u) / (end - u)), Real(h), z, z1, ks);
            break;
          }
          u = end;
          std::swap(z, z1);
          std::swap(ks[0], ks[stages - 1]);
        } else {
          back.rejected++;
        }
        h = next;
      }
    } else {
      const std::vector<Real> stops = grid(o, ends, 2);
      for (size_t n = 0; n + 1 < stops.size(); n++) {
        take_step(stops[n], stops[n + 1] - stops[n], stops[n + 1], false);
        back.accepted++;
        std::swap(z, z1);
      }
    }
    add_given(i - 1);
  }
  o.accepted_backward = back.accepted, o.rejected_backward = back.rejected;
  for (int tile = 0; tile < tiles; tile++) store(z.a.data() + size_t(tile) * Net::STATE, grad_y0, tile);
  std::copy(z.theta.begin(), z.theta.end(), grad);
}

// The adjoint and the gradients at the output time, from the quartic of the last step; y is known there.
static void arrive(const Call& o, Real x, Real h, Augmented& z, const Augmented& z1, const std::vector<Augmented>& ks) {
  const int stages = int(o.stages);
  auto at = [&](auto y0, auto y1, auto k) {
    auto ym = y0;
    for (int i = 0; i < stages; i++)
      if (o.middle[i] != 0) ym += Real(o.middle[i]) * h * k(i);
    const auto f0 = h * k(0), f1 = h * k(stages - 1);
    const auto a = 2 * (f1 - f0) - 8 * (y1 + y0) + 16 * ym;
    const auto b = 5 * f0 - 3 * f1 + 18 * y0 + 14 * y1 - 32 * ym;
    const auto c = f1 - 4 * f0 - 11 * y0 - 5 * y1 + 16 * ym;
    return y0 + x * (f0 + x * (c + x * (b + x * a)));
  };
  for (size_t v = 0; v < z.a.size(); v++) z.a[v] = at(z.a[v], z1.a[v], [&](int i) { return ks[i].a[v]; });
  for (int p = 0; p < PARAMETERS; p++)
    z.theta[p] = at(z.theta[p], z1.theta[p], [&](int i) { return ks[i].theta[p]; });
  z.time = at(z.time, z1.time, [&](int i) { return ks[i].time; });
}
