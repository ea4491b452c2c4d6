// What one call computes; the same for every instruction set. Vectors have `channels` entries,
// statistics and the gradients of vectors `groups * channels` (see _layout.py).
#pragma once
#include <cstdint>

struct Task {
  int64_t groups, outer, channels, inner;
  int threads;
  bool relu;
  const void *z, *residual, *dy;
  const void* result;  // the forward's output, read by its backward
  void *out, *dz, *dresidual;
  // Training: the norm (weight null: none, eps is the gate's own) and the gate (scale null: none).
  const float *weight, *bias, *scale, *shift;
  double eps, gate_eps;
  float *mean, *var;
  // Fixed statistics: x = p·(z - center) + q, t = slope·(z - center) + offset.
  const float *center, *p, *q, *slope, *offset;
  // Gradients of (weight, bias, scale, shift) or of (p, q, slope, offset).
  float *dweight, *dbias, *dscale, *dshift;
};

// A batch norm's vectors, and its running statistics where this call moves them on (or, with fixed
// statistics, takes them).
struct Norm {
  const float *weight, *bias;
  float *mean, *var;
  int64_t* batches;
  double momentum, eps;
};

// What |γ| is divided by to make NAM's importance.
enum Weighting { SUM, MEAN, RMS };

// A task whose vectors are still those of modules: a norm, NAM's gate, or both (null: none). The
// pointers to vectors in the task are set here; `vectors` has room for five of them, and holds
// between forward and backward what the latter needs.
struct Layer {
  Norm norm, gate;
  int weighting;
  float* vectors;
};
