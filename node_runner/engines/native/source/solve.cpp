// One solve of dy/dt = f(t, y) for a multilayer perceptron f, by an explicit Runge-Kutta method, and its gradient.
//
// The state of all samples is one array of vectors, tile after tile: [tile][row][vector]. The forward solve goes stage
// by stage over all tiles, since the error of all of them decides about a step. The discrete gradient goes tile by
// tile over all steps, since step sizes are constants in it and tiles then know nothing of each other.
#include <deque>
#include <pthread.h>  // not <mutex>, which takes longer to compile than all other headers
#if NODE_UNITS
#include "units.h"
#else
#include "network.h"
#endif
#include "controller.h"

// Memory of a size that is asked for again and again, once a step of every solve: kept for the next one.
class Pool {
 public:
  using Block = std::vector<Vec>;
  Block take(size_t size) {
    const Hold here(lock_);
    for (size_t i = free_.size(); i-- > 0;)
      if (free_[i].size() == size) {
        Block found = std::move(free_[i]);
        free_.erase(free_.begin() + i);
        return found;
      }
    return Block(size);
  }
  void give(Block&& block) {
    const Hold here(lock_);
    if (free_.size() < 4096) free_.push_back(std::move(block));
  }
  void forget() {
    const Hold here(lock_);
    std::vector<Block>().swap(free_);
  }
 private:
  struct Hold {
    pthread_mutex_t& lock;
    explicit Hold(pthread_mutex_t& l) : lock(l) { pthread_mutex_lock(&lock); }
    ~Hold() { pthread_mutex_unlock(&lock); }
  };
  pthread_mutex_t lock_ = PTHREAD_MUTEX_INITIALIZER;
  std::vector<Block> free_;
};
static Pool pool;

// sum_i weights[i] k[i] h, added to y (if there is one), for the weights that are not zero
struct Combination {
  int count = 0;
  Real weight[16];
  const Vec* k[16];
  Combination(const double* weights, int stages, Real h, const std::vector<Vec>* ks) {
    for (int i = 0; i < stages; i++)
      if (weights[i] != 0) {
        weight[count] = Real(weights[i]) * h;
        k[count++] = ks[i].data();
      }
  }
  Vec at(size_t i) const {
    Vec total = {};
    for (int m = 0; m < count; m++) total += weight[m] * k[m][i];
    return total;
  }
};

constexpr int WIDTH = NODE_WIDTH;  // vectors in a row of a tile

struct Solve {
  using Net = Network<WIDTH>;

  struct Output { int64_t index; Real x; };   // an output time within a step, and where in it, 0 to 1
  struct Step {
    double t, h, end;
    std::vector<Output> outputs;
    Pool::Block kept;  // EVALUATIONS: tapes of its stages; STATES: y, and f where the step begins with a known f
  };

  const Weights weights;
  const int64_t batch;
  const double sign;                     // -1 where time falls: the solver's clock rises all the same
  std::vector<double> clock;             // the output times by it
  const int tiles, threads;
  const size_t size;                     // vectors in the state of all samples
  std::vector<Vec> start, probes, mask;  // [tile][WIDTH], [tile][K][D][WIDTH], [tile][STATE]
  std::vector<Vec> y, y1, stage, scratch, first_state, first_tape;
  std::vector<std::vector<Vec>> k;
  std::vector<Vec> outputs;              // OUTPUTS: [time][size]
  std::deque<Step> steps;
  int64_t nfe = 0;

  explicit Solve(const Call& o)
      : weights(o.tensors), batch(o.batch), sign(o.times > 1 && o.ts[0] > o.ts[1] ? -1 : 1), clock(o.ts, o.ts + o.times),
        tiles(int((o.batch + Net::TILE - 1) / Net::TILE)),
        threads(NODE_UNITS ? 1 : int(std::max<int64_t>(1, std::min<int64_t>(o.threads, tiles)))), size(size_t(tiles) * Net::STATE),
        start(tiles * WIDTH), probes(size_t(tiles) * K * D * WIDTH), mask(size), y(size), y1(size),
        stage(size), scratch(size_t(tiles) * Net::TAPE), k(o.stages, std::vector<Vec>(size)) {
    for (double& t : clock) t *= sign;
    for (int tile = 0; tile < tiles; tile++)
      for (int c = 0; c < WIDTH; c++)
        for (int i = 0; i < LANES; i++) {
          if (o.start) start[tile * WIDTH + c][i] = o.start[clipped(tile, c, i)];
          for (int p = 0; p < K; p++)
            for (int j = 0; j < D; j++)
              probes[((tile * K + p) * D + j) * WIDTH + c][i] =
                  o.noise ? o.noise[clipped(tile, c, i) * D + j] : Real(p == j);
        }
    for (size_t v = 0; v < size; v++)
      for (int i = 0; i < LANES; i++) {
        const int place = int(v % Net::STATE);
        mask[v][i] = Net::row_at(place, i) < NORM_ROWS && sample(int(v / Net::STATE), place, i) < batch;
      }
  }
  ~Solve() {
    for (Step& step : steps)
      if (!step.kept.empty()) pool.give(std::move(step.kept));
#if NODE_PER_SAMPLE
    for (auto& log : attempts)
      for (Attempt& attempt : log) pool.give(std::move(attempt.kept));
#endif
  }

  // Lanes beyond the batch repeat its last sample, and do not count.
  int64_t sample(int tile, int v, int lane) const { return int64_t(tile) * Net::TILE + Net::sample_at(v, lane); }
  int64_t clipped(int tile, int v, int lane) const { return std::min(sample(tile, v, lane), batch - 1); }

  void load(const Real* from, Vec* to, int tile, bool pad) const {  // (batch, R) -> the state of a tile
    for (int v = 0; v < Net::STATE; v++)
      for (int i = 0; i < LANES; i++) {
        const int r = Net::row_at(v, i);
        const bool there = r < R && (pad || sample(tile, v, i) < batch);
        to[v][i] = there ? from[clipped(tile, v, i) * R + r] : Real(0);
      }
  }
  void store(const Vec* from, Real* to, int tile) const {
    for (int v = 0; v < Net::STATE; v++)
      for (int i = 0; i < LANES && Net::row_at(v, i) < R && sample(tile, v, i) < batch; i++)
        to[sample(tile, v, i) * R + Net::row_at(v, i)] = from[v][i];
  }
  // The tiles of one of the threads: always the same ones, so that sums over them are always formed in one order.
  int first_tile(int thread) const { return int(int64_t(tiles) * thread / threads); }

  // work(i) on each of the threads. One alone is not OpenMP's, which would take longer about it than about a small
  // evaluation.
  template <class Work>
  void on_threads(Work work) const {
    if (threads == 1) return work(0);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < threads; i++) {
      const NoSubnormals here;
      work(i);
    }
  }
  template <class Work>
  void on_tiles(Work work) const {
    on_threads([&](int i) {
      for (int tile = first_tile(i); tile < first_tile(i + 1); tile++) work(tile);
    });
  }
  const Vec* probes_of(int tile) const { return probes.data() + size_t(tile) * K * D * WIDTH; }

  struct Clock {  // the field's time, for every sample of a tile
    Vec each[WIDTH];
    Clock(const Solve& s, Real t, int tile) {
      for (int c = 0; c < WIDTH; c++) each[c] = t + s.start[tile * WIDTH + c];
    }
  };

  // The field at the solver's time t for one tile, turned round where the solver's clock runs against it.
  void evaluate_tile(double direction, const Gates& gates, Real t, int tile, const Vec* state, Vec* tape, Vec* out) const {
    Clock now(*this, t, tile);
    Net::evaluate(weights, gates, now.each, probes_of(tile), state, tape, out);
    if (direction < 0)
      for (int i = 0; i < Net::STATE; i++) out[i] = -out[i];
  }
  void evaluate(Real t, const Vec* state, Vec* out, Vec* tapes) {
    Real time = sign < 0 ? -t : t;
    Gates gates(weights, moment(time));
    on_tiles([&](int tile) {
      evaluate_tile(sign, gates, time, tile, state + size_t(tile) * Net::STATE, tapes + size_t(tile) * Net::TAPE,
                    out + size_t(tile) * Net::STATE);
    });
    nfe++;
  }

  Real norm(const Vec* error) const {  // RMS over the samples and the first rows of [tile][row][vector]
    Vec total = {};
    for (size_t v = 0; v < size; v++) {
      const Vec e = mask[v] > 0 ? error[v] : Vec{};
      total += e * e;
    }
    return std::sqrt(sum(total) / Real(batch * NORM_ROWS));
  }
  bool finite(const std::vector<Vec>& state) const {
    Vec zero = {};
    for (const Vec& v : state) zero += v * 0;
    return sum(zero) == 0;
  }

  // The time of stage i of a step from t to `end`: just before the end where the node is 1, as torchdiffeq has it.
  static Real stage_time(const Call& o, int i, double t, double h, double end) {
    if (o.adaptive) {
      if (o.c[i] == 1) return std::nextafter(Real(end), -std::numeric_limits<Real>::infinity());
      return Real(t) + Real(o.c[i]) * Real(h);
    }
    const Real infinity = std::numeric_limits<Real>::infinity();
    if (i == 0) return o.perturb ? std::nextafter(Real(t), infinity) : Real(t);
    // The last stage at the end of the step (for heun2, whose second node is 1, too).
    if (o.c[i] == 1) return o.perturb ? std::nextafter(Real(end), -infinity) : Real(end);
    return Real(t) + Real(o.c[i]) * Real(h);
  }

  // All stages of a step from y, k[0] known where `known`; the state after it is in y1.
  void take(const Call& o, double t, double h, double end, bool known, Vec* tapes) {
    const size_t tape = size_t(tiles) * Net::TAPE;
    for (int i = known ? 1 : 0; i < o.stages; i++) {
      Combination mix(o.a + i * o.stages, i, Real(h), k.data());
      Vec* to = i + 1 == o.stages && o.ends_in_solution ? y1.data() : stage.data();
      for (size_t v = 0; v < size; v++) to[v] = y[v] + mix.at(v);
      evaluate(stage_time(o, i, t, h, end), to, k[i].data(),
               tapes == scratch.data() ? tapes : tapes + (i - (known ? 1 : 0)) * tape);
    }
    if (!o.ends_in_solution) {
      Combination mix(o.b, o.stages, Real(h), k.data());
      for (size_t v = 0; v < size; v++) y1[v] = y[v] + mix.at(v);
    }
  }

  Real error_ratio(const Call& o, double h) {
    Combination mix(o.error, o.stages, Real(h), k.data());
    for (size_t v = 0; v < size; v++)
      stage[v] = mix.at(v) / (Real(o.atol) + Real(o.rtol) * larger(absolute(y[v]), absolute(y1[v])));
    return norm(stage.data());
  }

  double estimated_first_step(const Call& o, double t) {
    Real d[2];
    for (int which = 0; which < 2; which++) {
      for (size_t v = 0; v < size; v++)
        stage[v] = (which ? k[0][v] : y[v]) / (Real(o.atol) + absolute(y[v]) * Real(o.rtol));
      d[which] = norm(stage.data());
    }
    return first_step(o, d[0], d[1], [&](Real h0) {
      for (size_t v = 0; v < size; v++) y1[v] = y[v] + h0 * k[0][v];
      evaluate(Real(t) + h0, y1.data(), stage.data(), scratch.data());
      for (size_t v = 0; v < size; v++)
        stage[v] = (stage[v] - k[0][v]) / (Real(o.atol) + absolute(y[v]) * Real(o.rtol));
      return norm(stage.data());
    });
  }

  // --- forward --------------------------------------------------------------------------------------

  void write(const Call& o, int64_t index, const std::vector<Vec>& state) {
    for (int tile = 0; tile < tiles; tile++)
      store(state.data() + size_t(tile) * Net::STATE, o.ys + index * batch * R, tile);
    if (o.keep == OUTPUTS) std::copy(state.begin(), state.end(), outputs.begin() + index * size);
  }

  // Tapes that the next step will fill, if they are to be kept.
  Pool::Block tapes_for(const Call& o, int evaluations) {
    return o.keep == EVALUATIONS ? pool.take(size_t(tiles) * Net::TAPE * evaluations) : Pool::Block();
  }
  void keep(const Call& o, Step&& step, bool known, Pool::Block&& tapes) {
    if (o.keep == EVALUATIONS) step.kept = std::move(tapes);
    if (o.keep == STATES) {
      step.kept = pool.take(size * (known ? 2 : 1));
      std::copy(y.begin(), y.end(), step.kept.begin());
      if (known) std::copy(k[0].begin(), k[0].end(), step.kept.begin() + size);
    }
    if (o.keep == EVALUATIONS || o.keep == STATES) steps.push_back(std::move(step));
  }

  void forward(Call& o) {
    if (o.keep == OUTPUTS) outputs.resize(size * o.times);
    for (int tile = 0; tile < tiles; tile++) load(o.y0, y.data() + size_t(tile) * Net::STATE, tile, true);
    write(o, 0, y);
#if NODE_PER_SAMPLE
    per_sample(o);
#else
    if (o.adaptive) adaptive(o);
    else fixed(o);
#endif
    o.nfe = nfe;
    o.kept_bytes = int64_t(outputs.size() + first_tape.size() + first_state.size()) * BYTES;
    for (const Step& step : steps) o.kept_bytes += int64_t(step.kept.size()) * BYTES;
#if NODE_PER_SAMPLE
    for (const auto& log : attempts)
      for (const Attempt& attempt : log) o.kept_bytes += sizeof(Attempt) + attempt.kept.size() * BYTES;
#endif
  }

  void adaptive(Call& o) {
    if (o.keep == EVALUATIONS) first_tape.resize(size_t(tiles) * Net::TAPE);
    if (o.keep == STATES) first_state = y;
    double t = clock[0];
    evaluate(Real(t), y.data(), k[0].data(), o.keep == EVALUATIONS ? first_tape.data() : scratch.data());
    double h = o.first_step >= 0 ? o.first_step : estimated_first_step(o, t);
    Pool::Block tapes = tapes_for(o, o.stages - 1);
    for (int64_t j = 1; j < o.times;) {
      h = attempted(o, h);
      o.t = t, o.h = h;
      if (o.accepted + o.rejected >= o.max_steps) return stop(o, TOO_MANY);
      if (!(t + h > t) || !finite(y)) return stop(o, TOO_SMALL);
      const double end = t + h;
      take(o, t, h, end, true, tapes.empty() ? scratch.data() : tapes.data());
      const Real ratio = error_ratio(o, h);
      if (accepted(o, h, ratio)) {
        o.accepted++;
        Step step{t, h, end, {}, {}};
        for (; j < o.times && clock[j] <= end; j++)
          step.outputs.push_back({j, Real((clock[j] - t) / (end - t))});
        interpolate(o, step);
        keep(o, std::move(step), true, std::move(tapes));
        tapes = j < o.times ? tapes_for(o, o.stages - 1) : Pool::Block();
        t = end;
        y.swap(y1);
        k[0].swap(k[o.stages - 1]);
      } else {
        o.rejected++;
      }
      h = next_step(o, h, ratio);
    }
    if (!tapes.empty()) pool.give(std::move(tapes));
  }

  // Which of the two it is that ended the solve: a field that has left the numbers, or steps without end.
  void stop(Call& o, Status status) {
    if (status == TOO_SMALL) {
      evaluate(Real(o.t), y.data(), stage.data(), scratch.data());
      nfe--;
      if (!finite(y) || !finite(stage)) status = NOT_FINITE;
    }
    o.t *= sign;
    o.status = status;
  }

  // The quartic through y, y at the middle and y1 with the slopes at both ends (torchdiffeq's dense output).
  void interpolate(const Call& o, const Step& step) {
    if (step.outputs.empty()) return;
    const Real h = Real(step.h);
    Combination middle(o.middle, o.stages, h, k.data());
    for (const Output& at : step.outputs) {
      const Real x = at.x;
      for (size_t v = 0; v < size; v++) {
        const Vec ym = y[v] + middle.at(v), f0 = h * k[0][v], f1 = h * k[o.stages - 1][v];
        const Vec a = 2 * (f1 - f0) - 8 * (y1[v] + y[v]) + 16 * ym;
        const Vec b = 5 * f0 - 3 * f1 + 18 * y[v] + 14 * y1[v] - 32 * ym;
        const Vec c = f1 - 4 * f0 - 11 * y[v] - 5 * y1[v] + 16 * ym;
        stage[v] = y[v] + x * (f0 + x * (c + x * (b + x * a)));
      }
      write(o, at.index, stage);
    }
  }

  void fixed(Call& o) {
    const std::vector<Real> ends = grid(o, clock.data(), o.times);
    int64_t j = 1;
    for (size_t n = 0; n + 1 < ends.size(); n++) {
      const Real t = ends[n], end = ends[n + 1], h = end - t;
      Step step{double(t), double(h), double(end), {}, {}};
      for (; j < o.times && Real(clock[j]) <= end; j++) step.outputs.push_back({j, (Real(clock[j]) - t) / (end - t)});
      const int more = o.cubic && !step.outputs.empty();  // the slope at the end
      Pool::Block tapes = tapes_for(o, o.stages + more);
      take(o, t, h, end, false, tapes.empty() ? scratch.data() : tapes.data());
      o.accepted++;
      if (more) {
        Vec* tape = tapes.empty() ? scratch.data() : tapes.data() + o.stages * size_t(tiles) * Net::TAPE;
        evaluate(end, y1.data(), slope_at_end().data(), tape);
        nfe += step.outputs.size() - 1;  // torchdiffeq evaluates it anew for each output, and so is it counted
      }
      for (const Output& at : step.outputs) {
        const Blend w = blend(o, at.x, h);
        for (size_t v = 0; v < size; v++) {
          stage[v] = w.y0 * y[v] + w.y1 * y1[v];
          if (o.cubic) stage[v] += w.f0 * k[0][v] + w.f1 * slope_at_end()[v];
        }
        write(o, at.index, at.x == 1 && !o.cubic ? y1 : stage);
      }
      keep(o, std::move(step), false, std::move(tapes));
      y.swap(y1);
    }
  }
  std::vector<Vec> end_slope;
  std::vector<Vec>& slope_at_end() {
    end_slope.resize(size);
    return end_slope;
  }

  // An output within a fixed step, as weights of the states and slopes at its ends: linear, or Hermite's cubic.
  struct Blend { Real y0, y1, f0, f1; };
  static Blend blend(const Call& o, Real x, Real h) {
    if (!o.cubic) return {1 - x, x, 0, 0};
    return {(1 + 2 * x) * (1 - x) * (1 - x), x * x * (3 - 2 * x), x * (1 - x) * (1 - x) * h, x * x * (x - 1) * h};
  }

  // Only what is wanted is compiled.
#if NODE_PER_SAMPLE
#include "per_sample.h"
#endif
#if NODE_GRADIENT == 1 && NODE_PER_SAMPLE
#include "per_sample_gradient.h"
#elif NODE_GRADIENT == 1
#include "discrete.h"
#elif NODE_GRADIENT == 2
#include "continuous.h"
#else
  void gradient(Call&, const Real*, Real*, Real*) {}
#endif

  void backward(Call& o, const Real* grad_ys, Real* grad_y0, Real* grad) {
    nfe = 0;
    std::fill(grad, grad + PARAMETERS, Real(0));
    gradient(o, grad_ys, grad_y0, grad);
    o.nfe_backward = nfe;
  }
};

extern "C" {
int64_t node_parameters() { return PARAMETERS; }
int64_t node_call_size() { return sizeof(Call); }

// A solve; what it keeps for its gradient is returned, null where nothing is kept or the solve failed.
void* node_forward(Call* o) {
  const NoSubnormals here;
  Solve* solve = nullptr;
  try {
    solve = new Solve(*o);
    solve->forward(*o);
  } catch (...) {  // of memory that is not there: nothing else is thrown
    o->status = NO_MEMORY;
  }
  if (o->keep != NOTHING && o->status == DONE) return solve;
  delete solve;
  return nullptr;
}
void node_backward(void* solve, Call* o, const Real* grad_ys, Real* grad_y0, Real* grad) {
  const NoSubnormals here;
  try {
    static_cast<Solve*>(solve)->backward(*o, grad_ys, grad_y0, grad);
  } catch (...) {
    o->status = NO_MEMORY;
  }
}
void node_release(void* solve) { delete static_cast<Solve*>(solve); }
void node_forget() { pool.forget(); }
}
