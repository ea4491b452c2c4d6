// Maps in which the elements of a statistic come in runs (`inner` > 1): a channel at a time, so
// that its second pass finds in the cache what the first one read.
namespace NORMATTN_ISA {

constexpr int64_t AHEAD = 256;  // elements between what is worked on and what is asked for

// Runs a pass over channel k of group g, the last plane first where the cache holds that one.
template <class Pass>
INLINE void each_plane(const Task& t, int64_t g, int64_t k, bool backwards, const Pass& prepared) {
  Pass pass = prepared;  // a local one lives in registers
  int64_t stride = t.channels * t.inner * (backwards ? -1 : 1);
  int64_t start = ((g * t.outer + (backwards ? t.outer - 1 : 0)) * t.channels + k) * t.inner;
  for (int64_t o = 0; o < t.outer; o++, start += stride) {
    int64_t i = start, end = start + t.inner;
    for (; i + LANES <= end; i += LANES) {
      pass.fetch(i + AHEAD < end ? i + AHEAD : i + AHEAD - t.inner + stride);
      pass.at(i, LANES, Whole{});
    }
    if (i < end) pass.at(i, (int)(end - i), Part{});
  }
}

template <class T>
INLINE Moments plane_moments(const Task& t, int64_t g, int64_t k) {
  const T* z = (const T*)t.z;
  Moments m;
  // Blocks are summed from the mean so far, the first and small one from its first element.
  float origin = load_first(z + (g * t.outer * t.channels + k) * t.inner, 1)[0];
  int64_t limit = 8 * LANES, n = 0;
  F from = splat(origin), s[2] = {}, q[2] = {};
  auto close = [&] {
    m.add((double)n, origin, sum(s[0] + s[1]), sum(q[0] + q[1]));
    s[0] = s[1] = q[0] = q[1] = F{};
    from = splat(origin = (float)m.mean);
    n = 0;
    limit = 4096;
  };
  for (int64_t o = 0; o < t.outer; o++) {
    int64_t i = ((g * t.outer + o) * t.channels + k) * t.inner, end = i + t.inner;
    while (i < end) {
      int64_t stop = smaller(end, i + (limit - n));
      n += stop - i;
      for (; i + 2 * LANES <= stop; i += 2 * LANES)
        for (int u = 0; u < 2; u++) {
          F v = load(z + i + u * LANES) - from;
          s[u] += v;
          q[u] += v * v;
        }
      for (; i < stop; i += LANES) {
        int rest = (int)smaller(LANES, stop - i);
        F v = (rest == LANES ? load(z + i) : load_first(z + i, rest, from)) - from;
        s[0] += v;
        q[0] += v * v;
      }
      i = smaller(i, stop);
      if (n >= limit) close();
    }
  }
  if (n) close();
  return m;
}

template <class Body>
INLINE void each_channel(const Task& t, Body&& body) {
  int64_t items = t.groups * t.channels;
  int threads = (int)smaller(t.threads, items);
#pragma omp parallel num_threads(threads)
  {
    int64_t id = omp_get_thread_num(), all = omp_get_num_threads();
    for (int64_t j = items * id / all; j < items * (id + 1) / all; j++)
      body(j, j / t.channels, j % t.channels);
  }
}

// With fixed statistics there is one pass, plane by plane as they lie in memory.
template <class T, class Form>
void planes_forward_fixed(const Task& t) {
  Buffer<float> buffer(TABLE_ROWS * t.channels);
  Table table{buffer.at, t.channels};
  for (int64_t k = 0; k < t.channels; k++) fixed_coefficients(t, table, k, k);
  int64_t planes = t.groups * t.outer * t.channels;
  // Not in the region itself: clang compiles a region for the default instruction set.
  auto range = [&](int64_t plane, int64_t stop) {
    Forward<T, Form> pass(t);
    int64_t k = plane % t.channels;
    for (; plane < stop; plane++, k = k + 1 == t.channels ? 0 : k + 1) {
      pass.begin(table.splat_coefficients(k));
      int64_t i = plane * t.inner, end = i + t.inner;
      for (; i + LANES <= end; i += LANES) {
        pass.fetch(i + AHEAD);
        pass.at(i, LANES, Whole{});
      }
      if (i < end) pass.at(i, (int)(end - i), Part{});
    }
  };
#pragma omp parallel num_threads(t.threads)
  {
    int64_t id = omp_get_thread_num(), all = omp_get_num_threads();
    range(planes * id / all, planes * (id + 1) / all);
  }
}

template <class T, class Form>
void planes_forward(const Task& t, bool fixed) {
  if (fixed) return planes_forward_fixed<T, Form>(t);
  each_channel(t, [&](int64_t j, int64_t g, int64_t k) {
    float row[TABLE_ROWS];
    Table table{row, 1};
    Moments m = plane_moments<T>(t, g, k);
    t.mean[j] = (float)m.mean;
    t.var[j] = (float)m.var();
    train_coefficients<Form>(t, table, 0, k, m.mean, m.var());
    Forward<T, Form> pass(t);
    pass.begin(table.splat_coefficients());
    each_plane(t, g, k, true, pass);
  });
}

// Runs a reducing pass over one channel; float sums are kept short and added up in double.
template <class Form, class Pass>
INLINE Totals plane_totals(const Task& t, int64_t g, int64_t k, const Pass& prepared) {
  Pass pass = prepared;
  Totals total;
  int64_t n = 0, stride = t.channels * t.inner;
  auto close = [&] {
    if (Form::gate) total.dt += sum(pass.s.dt), total.dtc += sum(pass.s.dtc);
    if (Form::norm) total.gs += sum(pass.s.gs), total.gsc += sum(pass.s.gsc);
    pass.s = Sums{};
    n = 0;
  };
  for (int64_t o = 0; o < t.outer; o++) {
    int64_t i = (g * t.outer + o) * stride + k * t.inner, end = i + t.inner;
    while (i < end) {
      int64_t stop = smaller(end, i + 4096);
      n += stop - i;
      for (; i + LANES <= stop; i += LANES) {
        pass.fetch(i + AHEAD < end ? i + AHEAD : i + AHEAD - t.inner + stride);
        pass.at(i, LANES, Whole{});
      }
      if (i < stop) pass.at(i, (int)(stop - i), Part{}), i = stop;
      if (n >= 4096) close();
    }
  }
  close();
  return total;
}

template <class T, class Form>
void planes_backward(const Task& t, bool fixed) {
  each_channel(t, [&](int64_t j, int64_t g, int64_t k) {
    float row[TABLE_ROWS];
    Table table{row, 1};
    if (fixed) {
      fixed_coefficients(t, table, 0, k);
      Reduce<T, Form, true> pass(t);
      pass.begin(table.splat_coefficients());
      fixed_gradients(t, j, plane_totals<Form>(t, g, k, pass));
      return;
    }
    train_coefficients<Form>(t, table, 0, k, t.mean[j], t.var[j]);
    Reduce<T, Form, false> reduce(t);
    reduce.begin(table.splat_coefficients());
    train_gradients<Form>(t, table, 0, j, k, plane_totals<Form>(t, g, k, reduce));
    train_gradient_of_one(t, table, 0);
    Apply<T, Form> apply(t);
    apply.begin(table.splat_coefficients(), table.splat_corrections());
    each_plane(t, g, k, true, apply);
  });
}

}  // namespace NORMATTN_ISA
