// The activations of a field, with two derivatives: the second one is asked for by the gradient of a divergence.
#pragma once
#include "lanes.h"

enum Activation { NONE, TANH, SOFTPLUS, SILU, GELU, ELU, SIN, RELU, LEAKY_RELU, SIGMOID };
constexpr Activation ACTIVATIONS[] = NODE_ACTIVATIONS;  // after each layer
constexpr Real SLOPE = NODE_SLOPE;                      // of the leaky one, below 0

struct Bend { Vec value, slope, curve; };  // s(x), s'(x), s''(x)

template <Activation KIND>
static inline Bend bend(Vec x) {
  if constexpr (KIND == NONE) {
    return {x, splat(1), Vec{}};
  } else if constexpr (KIND == TANH) {
    Vec h = tanh_of(x), slope = 1 - h * h;
    return {h, slope, -2 * h * slope};
  } else if constexpr (KIND == SOFTPLUS) {  // linear above 20, as torch has it
    Vec z = exp_negative(-absolute(x)), s = sigmoid(x), one = splat(1);
    Vec h = (x > 0 ? x : Vec{}) + log1p_unit(z);
    return {x > 20 ? x : h, x > 20 ? one : s, x > 20 ? Vec{} : s * (1 - s)};
  } else if constexpr (KIND == SILU) {
    Vec s = sigmoid(x), d = s * (1 - s);
    return {x * s, s + x * d, d * (2 + x * (1 - 2 * s))};
  } else if constexpr (KIND == GELU) {
    Vec share = each(x, [](Real a) { return Real(0.5) * std::erfc(Real(-0.70710678118654752440) * a); });
    Vec density = each(x, [](Real a) { return Real(0.39894228040143267794) * std::exp(Real(-0.5) * a * a); });
    return {x * share, share + x * density, density * (2 - x * x)};
  } else if constexpr (KIND == ELU) {
    Vec e = expm1_negative(x > 0 ? Vec{} : x), one = splat(1);
    return {x > 0 ? x : e, x > 0 ? one : e + 1, x > 0 ? Vec{} : e + 1};
  } else if constexpr (KIND == SIN) {
    Vec s = each(x, [](Real a) { return std::sin(a); });
    return {s, each(x, [](Real a) { return std::cos(a); }), -s};
  } else if constexpr (KIND == LEAKY_RELU) {
    Vec one = splat(1);
    return {x > 0 ? x : x * SLOPE, x > 0 ? one : one * SLOPE, Vec{}};
  } else if constexpr (KIND == SIGMOID) {
    Vec s = sigmoid(x), slope = s * (1 - s);
    return {s, slope, slope * (1 - 2 * s)};
  } else {
    Vec one = splat(1);
    return {x <= 0 ? Vec{} : x, x <= 0 ? Vec{} : one, Vec{}};  // keeps NaN
  }
}
