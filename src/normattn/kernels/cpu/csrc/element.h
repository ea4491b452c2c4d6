// The formula for one vector of elements, forward and backward, and its coefficients.
namespace NORMATTN_ISA {

// With c = z - center:  x = p·c + q (or z),  e = 2^(a·c + b) = exp(-t),  y = x / (1 + e).
// Centred, so that a mean far above the deviation costs no digits.
struct Coefficients {
  F center, p, q, a, b;
};
// The backward's, for dz = dx + constant + linear·c.
struct Corrections {
  F constant, linear;
};
// Σ dt, Σ dt·c, Σ g·σ, Σ g·σ·c  (without a gate σ = 1 and the first two stay empty).
struct Sums {
  F dt{}, dtc{}, gs{}, gsc{};
};

// Which parts there are, known when compiled: a norm in front, a gate, a residual behind.
template <bool Norm, bool Gate, bool Residual>
struct Form {
  static constexpr bool norm = Norm, gate = Gate, residual = Residual;
};

template <class Form>
INLINE F forward_element(F z, F residual, const Coefficients& k, F floor) {
  F c = z - k.center;
  F x = Form::norm ? k.p * c + k.q : z;
  F y = Form::gate ? x / (exp2(k.a * c + k.b) + 1.0f) : x;
  if (Form::residual) y += residual;
  return y < floor ? floor : y;  // keeps NaN; without ReLU the floor is NaN and nothing is below
}

struct Gradient {
  F g, gs, dt, c;
};

template <class Form>
INLINE Gradient backward_element(F z, F dy, F result, const Coefficients& k, F floor) {
  Gradient d;
  d.c = z - k.center;
  F x = Form::norm ? k.p * d.c + k.q : z;
  // Without a residual the output's sign is x's, and nothing need be kept for the mask.
  d.g = (Form::residual ? result : x) <= floor ? F{} : dy;
  if (Form::gate) {
    F e = exp2(k.a * d.c + k.b);
    F s = 1.0f / (e + 1.0f);
    d.gs = d.g * s;
    d.dt = d.gs * (e * s) * x;  // 1 - σ = e·σ, without cancellation
  } else {
    d.gs = d.g;
    d.dt = F{};
  }
  return d;
}

template <class Form>
INLINE void add(Sums& s, const Gradient& d) {
  if (Form::gate) {
    s.dt += d.dt;
    s.dtc += d.dt * d.c;
  }
  if (Form::norm) {
    s.gs += d.gs;
    s.gsc += d.gs * d.c;
  }
}

// What flows into z through x and through t; `a` is -slope·log2(e).
template <class Form>
INLINE F direct(const Gradient& d, const Coefficients& k) {
  F dx = Form::norm ? d.gs * k.p : d.gs;
  return Form::gate ? dx - (d.dt * LN2) * k.a : dx;
}

// The coefficients of all channels, one padded vector each, in the order of Coefficients and
// Corrections.
struct Table {
  float* at;
  int64_t stride;
  float* row(int i) const { return at + i * stride; }
  INLINE_MEMBER Coefficients coefficients(int64_t i) const {
    return {get(row(0) + i), get(row(1) + i), get(row(2) + i), get(row(3) + i), get(row(4) + i)};
  }
  INLINE_MEMBER Corrections corrections(int64_t i) const {
    return {get(row(5) + i), get(row(6) + i)};
  }
  // Those of one channel in every lane.
  INLINE_MEMBER Coefficients splat_coefficients(int64_t k = 0) const {
    return {splat(row(0)[k]), splat(row(1)[k]), splat(row(2)[k]), splat(row(3)[k]),
            splat(row(4)[k])};
  }
  INLINE_MEMBER Corrections splat_corrections(int64_t k = 0) const {
    return {splat(row(5)[k]), splat(row(6)[k])};
  }
  void set(int64_t k, double center, double p, double q, double slope, double offset) const {
    row(0)[k] = (float)center;
    row(1)[k] = (float)p;
    row(2)[k] = (float)q;
    row(3)[k] = (float)(-slope * M_LOG2E);
    row(4)[k] = (float)(-offset * M_LOG2E);
  }
};
constexpr int TABLE_ROWS = 7;

// The gate's logit is slope·x̂ + shift, where x̂ is z normalised. Behind a norm, the gate's own norm
// has mean = bias and variance = weight²·var/(var + eps): see kernels/block_tail/README.md.
//
// These run once a channel, which on a small map of many channels is no small part: so they have no
// branches, and a loop over them becomes one of vectors.
struct Slope {
  double rstd, gate_rstd, value;
};
template <class Form>
INLINE Slope slope_of(const Task& t, int64_t k, double var) {
  Slope s{1.0 / std::sqrt(var + t.eps), 1.0, 0.0};
  double w = Form::norm ? t.weight[k] : 1.0;
  if (Form::norm && Form::gate)
    s.gate_rstd = 1.0 / std::sqrt(w * w * var * s.rstd * s.rstd + t.gate_eps);
  if (Form::gate) s.value = t.scale[k] * w * s.gate_rstd;
  return s;
}

// From a channel's statistics to its coefficients, written at `at`.
template <class Form>
INLINE void train_coefficients(const Task& t, const Table& table, int64_t at, int64_t k,
                               double mean, double var) {
  Slope s = slope_of<Form>(t, k, var);
  double w = Form::norm ? t.weight[k] : 1.0, q = Form::norm ? t.bias[k] : 0.0;
  table.set(at, mean, w * s.rstd, q, s.value * s.rstd, Form::gate ? t.shift[k] : 0.0);
}
INLINE void fixed_coefficients(const Task& t, const Table& table, int64_t at, int64_t k) {
  table.set(at, t.center[k], t.p ? t.p[k] : 1.0, t.q ? t.q[k] : 0.0, t.slope ? t.slope[k] : 0.0,
            t.offset ? t.offset[k] : 0.0);
}

// The four sums as scalars, over all elements of a statistic.
struct Totals {
  double dt = 0, dtc = 0, gs = 0, gsc = 0;
};

// From the sums of statistic j (channel k) to the corrections of dz and the vectors' gradients.
template <class Form>
INLINE void train_gradients(const Task& t, const Table& table, int64_t at, int64_t j, int64_t k,
                            const Totals& total) {
  double inverse = 1.0 / ((double)t.outer * t.inner), var = t.var[j];
  Slope s = slope_of<Form>(t, k, var);
  double dt_xhat = total.dtc * s.rstd, gs_xhat = total.gsc * s.rstd;
  double through_var = 0.0;
  if (!Form::norm) {
    t.dscale[j] = (float)dt_xhat;
  } else {
    double w = t.weight[k], r2 = s.rstd * s.rstd, g2 = s.gate_rstd * s.gate_rstd;
    double dslope_dweight = 0.0, dslope_dvar = 0.0;
    if (Form::gate) {
      dslope_dweight = t.scale[k] * s.gate_rstd * (1.0 - w * w * var * r2 * g2);
      dslope_dvar = -0.5 * s.value * g2 * w * w * t.eps * r2 * r2;
      t.dscale[j] = (float)(w * s.gate_rstd * dt_xhat);
    }
    t.dweight[j] = (float)(gs_xhat + dt_xhat * dslope_dweight);
    t.dbias[j] = (float)total.gs;
    through_var = 2.0 * dt_xhat * dslope_dvar * inverse;
  }
  if (Form::gate) t.dshift[j] = (float)total.dt;
  // d x̂ = direct parts; what the mean and the variance give back to every element:
  double w = Form::norm ? t.weight[k] : 0.0;
  double mean_d = (w * total.gs + s.value * total.dt) * inverse;
  double mean_dxhat = (w * gs_xhat + s.value * dt_xhat) * inverse;
  table.row(5)[at] = (float)(-s.rstd * mean_d);
  table.row(6)[at] = (float)(-s.rstd * s.rstd * mean_dxhat + through_var);
}
// A single value is its own mean: nothing flows through x̂, and what would cancel would be large.
INLINE void train_gradient_of_one(const Task& t, const Table& table, int64_t at) {
  if (t.outer * t.inner == 1)
    table.row(1)[at] = table.row(3)[at] = table.row(5)[at] = table.row(6)[at] = 0.0f;
}
INLINE void fixed_gradients(const Task& t, int64_t j, const Totals& total) {
  if (t.dscale) t.dscale[j] = (float)total.dtc;
  if (t.dshift) t.dshift[j] = (float)total.dt;
  if (t.dweight) t.dweight[j] = (float)total.gsc;
  if (t.dbias) t.dbias[j] = (float)total.gs;
}

// The biased variance; rounding may have made the sum of squares negative, and NaN stays.
INLINE double variance(double m2, double inverse) {
  double v = m2 * inverse;
  return (v + std::fabs(v)) * 0.5;  // what is negative becomes 0, without a branch
}

// Mean and squared deviations of a growing set, by Chan's combination of blocks.
struct Moments {
  double count = 0, mean = 0, m2 = 0;
  // A block of n values: sums of (v - origin) and of its square.
  INLINE_MEMBER void add(double n, double origin, double s, double q) {
    if (n == 0) return;
    merge(n, origin + s / n, q - s * s / n);
  }
  INLINE_MEMBER void merge(double n, double m, double squares) {
    double both = count + n, delta = m - mean;
    mean += delta * (n / both);
    m2 += squares + delta * delta * (count * n / both);
    count = both;
  }
  double var() const { return variance(m2, 1.0 / count); }
};

}  // namespace NORMATTN_ISA
