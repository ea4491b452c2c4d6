// From the vectors of modules to those of a task, and back: what would else be a dozen small
// operations of torch around each call, which take longer than the call on a small map.
#pragma once
#include <cmath>

#include "task.h"

namespace layer {

inline double divisor(const float* scale, int64_t count, int weighting) {
  // In double, with the bounds of attention/nam.py: all scales at zero make an importance of zero.
  double sum = 0;
  for (int64_t k = 0; k < count; k++)
    sum += weighting == RMS ? (double)scale[k] * scale[k] : std::fabs((double)scale[k]);
  if (weighting == SUM) return sum > 1e-12 ? sum : sum != sum ? sum : 1e-12;
  sum /= (double)count;
  double least = weighting == MEAN ? 1e-12 : 1e-24;
  if (sum <= least) sum = least;
  return weighting == MEAN ? sum : std::sqrt(sum);
}

// The importance, and the gate's vectors multiplied with it.
inline void weigh(const Layer& l, int64_t count, float* scale, float* shift, float* importance) {
  double by = divisor(l.gate.weight, count, l.weighting);
  for (int64_t k = 0; k < count; k++) {
    importance[k] = (float)(std::fabs((double)l.gate.weight[k]) / by);
    scale[k] = importance[k] * l.gate.weight[k];
    shift[k] = importance[k] * l.gate.bias[k];
  }
}

inline void batch_vectors(Task& t, const Layer& l, bool backward) {
  int64_t n = t.channels;
  float* at = l.vectors;
  t.mean = at, t.var = at + n;
  t.weight = l.norm.weight, t.bias = l.norm.bias;
  t.eps = l.norm.weight ? l.norm.eps : l.gate.eps;
  t.gate_eps = l.gate.eps;
  if (!l.gate.weight) return;
  t.scale = at + 2 * n, t.shift = at + 3 * n;
  if (!backward) weigh(l, n, at + 2 * n, at + 3 * n, at + 4 * n);
}

inline void fixed_vectors(Task& t, const Layer& l) {
  int64_t n = t.channels;
  float *p = l.vectors, *slope = p + n, *offset = p + 2 * n, *importance = p + 3 * n;
  const Norm& first = l.norm.weight ? l.norm : l.gate;
  t.center = first.mean;
  if (l.norm.weight) {
    t.p = p, t.q = l.norm.bias;
    for (int64_t k = 0; k < n; k++)
      p[k] = (float)(l.norm.weight[k] / std::sqrt((double)l.norm.var[k] + l.norm.eps));
  }
  if (!l.gate.weight) return;
  t.slope = slope, t.offset = offset;
  weigh(l, n, slope, offset, importance);
  for (int64_t k = 0; k < n; k++) {
    double factor = slope[k] / std::sqrt((double)l.gate.var[k] + l.gate.eps);
    // Behind a norm the gate sees p·(z - center) + bias; alone its center is its own mean.
    slope[k] = (float)(l.norm.weight ? factor * p[k] : factor);
    if (l.norm.weight) offset[k] += (float)(factor * ((double)l.norm.bias[k] - l.gate.mean[k]));
  }
}

inline void move_on(const Norm& norm, int64_t k, double mean, double var) {
  norm.mean[k] += (float)(norm.momentum * (mean - norm.mean[k]));
  norm.var[k] += (float)(norm.momentum * (var - norm.var[k]));
}

// Running statistics, of the unbiased variance. The gate's norm sees what the norm in front has
// made: mean β and variance γ²·var/(var + eps), see kernels/block_tail/README.md.
inline void track(const Task& t, const Layer& l) {
  double count = (double)t.outer * t.inner, unbiased = count / (count - 1);
  const Norm& first = l.norm.weight ? l.norm : l.gate;
  if (first.batches) ++*first.batches;
  if (first.mean)
    for (int64_t k = 0; k < t.channels; k++) move_on(first, k, t.mean[k], t.var[k] * unbiased);
  if (!l.norm.weight || !l.gate.weight) return;
  if (l.gate.batches) ++*l.gate.batches;
  if (!l.gate.mean) return;
  for (int64_t k = 0; k < t.channels; k++) {
    double w = l.norm.weight[k], var = t.var[k];
    move_on(l.gate, k, l.norm.bias[k], w * w * (var / (var + l.norm.eps)) * unbiased);
  }
}

// The gradients of γ and β, through the products with the importance, which itself gets none.
inline void weigh_gradients(const Task& t, const Layer& l) {
  if (!l.gate.weight) return;
  const float* importance = l.vectors + 4 * t.channels;
  for (int64_t k = 0; k < t.channels; k++) {
    t.dscale[k] *= importance[k];
    t.dshift[k] *= importance[k];
  }
}

}  // namespace layer
