// Vectors as wide as the processor's registers, a lane for each sample (network.h) or each unit of a layer (units.h),
// and the functions that act on them.
//
// NaN and infinity go through everything here as IEEE arithmetic has it; nothing may be compiled with -ffast-math.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

// While it lives, numbers too small for a full mantissa are zero on this thread. Processors are up to a hundred times
// slower on them, and the gradient of a loss that is all but zero is full of them.
struct NoSubnormals {
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  NoSubnormals() { _mm_setcsr(before | 0x8040); }  // results and operands
  ~NoSubnormals() { _mm_setcsr(before); }
#endif
};

typedef NODE_REAL Real;
constexpr bool SINGLE = sizeof(Real) == 4;

// Accumulators that a loop keeps in registers, and the widest vector, by what the processor has.
#if defined(__AVX512VL__)
constexpr int ACCUMULATORS = 16, WIDEST_VECTOR = 64;
#elif defined(__AVX__)
constexpr int ACCUMULATORS = 8, WIDEST_VECTOR = 32;
#else
constexpr int ACCUMULATORS = 8, WIDEST_VECTOR = 16;
#endif
constexpr int BYTES = NODE_BYTES < WIDEST_VECTOR ? NODE_BYTES : WIDEST_VECTOR;
constexpr int LANES = BYTES / int(sizeof(Real));

typedef Real Vec __attribute__((vector_size(BYTES)));
typedef std::conditional_t<SINGLE, int32_t, int64_t> Whole;
typedef Whole Mask __attribute__((vector_size(BYTES)));

static inline Vec splat(Real x) { return x - Vec{}; }
static inline Vec absolute(Vec x) { return x < 0 ? -x : x; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }  // b where either is NaN and b is

template <int BYTES_LEFT>
static inline Real sum_of(const Real* x) {
  if constexpr (BYTES_LEFT == 16) {
    if constexpr (SINGLE) return (x[0] + x[1]) + (x[2] + x[3]);
    else return x[0] + x[1];
  } else {
    typedef Real Half __attribute__((vector_size(BYTES_LEFT / 2)));
    Half low, high;
    std::memcpy(&low, x, sizeof low);
    std::memcpy(&high, x + BYTES_LEFT / 2 / sizeof(Real), sizeof high);
    low += high;
    Real rest[BYTES_LEFT / 2 / sizeof(Real)];
    std::memcpy(rest, &low, sizeof low);
    return sum_of<BYTES_LEFT / 2>(rest);
  }
}
static inline Real sum(Vec x) {
  Real lanes[LANES];
  std::memcpy(lanes, &x, sizeof x);
  return sum_of<BYTES>(lanes);
}

template <int P>
static inline Vec raised(Vec x) {  // x^P, P at least 1
  if constexpr (P == 1) return x;
  else return raised<P - 1>(x) * x;
}

template <class Function>
static inline Vec each(Vec x, Function f) {
  for (int i = 0; i < LANES; i++) x[i] = f(x[i]);
  return x;
}

// --- exponentials -------------------------------------------------------------------------------------
// exp(a) = 2^n e^r with |r| <= log(2)/2; e^r - 1 by its Taylor series, exact to rounding on that interval.

struct Split { Vec power, rest; };  // exp(a) = power * (1 + rest)

static inline Split split_exp(Vec a) {
  constexpr Real round = SINGLE ? Real(12582912.0) : Real(6755399441055744.0);  // 1.5 * 2^mantissa
  constexpr Real high = SINGLE ? Real(0.693359375) : Real(6.93145751953125e-1);
  constexpr Real low = SINGLE ? Real(-2.12194440054690583e-4) : Real(1.42860682030941723212e-6);
  Vec n = (a * Real(1.4426950408889634074) + round) - round;
  Vec r = (a - n * high) - n * low;
  constexpr double c[] = {1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880, 1. / 40320,
                          1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 1. / 2};
  Vec p = splat(Real(c[SINGLE ? 6 : 0]));
  for (int i = SINGLE ? 7 : 1; i < 12; i++) p = p * r + Real(c[i]);
  Mask exponent = (__builtin_convertvector(n, Mask) + (SINGLE ? 127 : 1023)) << (SINGLE ? 23 : 52);
  Split parts;
  std::memcpy(&parts.power, &exponent, sizeof exponent);
  parts.rest = p * r * r + r;
  return parts;
}

constexpr Real SMALLEST = SINGLE ? Real(-87) : Real(-708);  // exp of it is a normal number

static inline Vec exp_negative(Vec a) {  // a <= 0
  Split e = split_exp(a < SMALLEST ? splat(SMALLEST) : a);
  return e.power * e.rest + e.power;
}
static inline Vec expm1_negative(Vec a) {  // a <= 0
  constexpr Real least = SINGLE ? Real(-20) : Real(-44);  // exp(a) - 1 is -1 to rounding
  Split e = split_exp(a < least ? splat(least) : a);
  return e.power * e.rest + (e.power - 1);
}
static inline Vec log1p_unit(Vec z) {  // 0 <= z <= 1: log(1 + z) = 2 artanh(z / (2 + z))
  Vec w = z / (z + 2), w2 = w * w;
  constexpr int terms = SINGLE ? 8 : 18;
  Vec p = splat(Real(1) / Real(2 * terms + 1));
  for (int k = terms - 1; k >= 0; k--) p = p * w2 + Real(1) / Real(2 * k + 1);
  return 2 * w * p;
}
static inline Vec tanh_of(Vec x) {  // through |x|, where exp(-2|x|) - 1 keeps its digits
  Vec e = expm1_negative(-2 * absolute(x));
  Vec t = -e / (e + 2);
  return x < 0 ? -t : t;
}
static inline Vec sigmoid(Vec x) {
  Vec z = exp_negative(-absolute(x));
  Vec s = 1 / (1 + z);
  return x < 0 ? z * s : s;
}
static inline Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }
