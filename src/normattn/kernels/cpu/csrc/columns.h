// Maps in which neighbours belong to different statistics (`inner` == 1): `outer` rows of
// `channels` columns, as channels_last gives them.
//
// Each thread takes a range of rows, and the threads meet between the passes. Of several groups,
// which have fewer rows, each takes strips of columns, and none waits for another.
namespace NORMATTN_ISA {

constexpr int64_t RUN = 128;        // elements of a tile, about
constexpr int64_t BLOCK = 64;       // rows of a block, in which sums stay in float32
constexpr int64_t SMALL = 1 << 22;  // elements of a map that may be cached
constexpr int64_t STRIP = 64;       // columns of a strip: four cache lines of float32

INLINE int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

struct Rectangle {
  int64_t row0, row1, column0, column1;
};

// A tile of a large map is a row, or a few short ones, and so lies together in memory: each row of
// a taller tile would be a stream of its own, and processors fetch only some ahead. On a map that
// the caches hold, or on rows whose coefficients and sums fill a cache themselves, it is better to
// use these for a few rows at a time. Found by trying heights of 1 to 16 on shapes of both kinds.
INLINE int64_t tile_rows(const Task& t, int64_t width) {
  int64_t least = t.channels >= 1024 || t.outer * t.channels <= SMALL ? 4 : 1;
  return RUN / width > least ? RUN / width : least;
}

// Runs a pass over a block of rows, tile by tile and in each a vector of columns at a time, with
// begin(pass, at) before and end(pass, at) behind; `at` counts from the rectangle's first column,
// where tables and sums begin.
template <class Pass, class Begin, class End>
INLINE void run_tiles(const Task& t, int64_t base, const Rectangle& part, const Pass& prepared,
                      Begin&& begin, End&& end) {
  Pass pass = prepared;  // a local one lives in registers
  int64_t width = part.column1 - part.column0, tile = tile_rows(t, width);
  for (int64_t row0 = part.row0; row0 < part.row1; row0 += tile) {
    int64_t row1 = smaller(part.row1, row0 + tile), at = 0;
    int64_t first = base + row0 * t.channels + part.column0;
    for (; at + LANES <= width; at += LANES) {
      begin(pass, at);
      for (int64_t row = row0, i = first + at; row < row1; row++, i += t.channels) {
        pass.fetch(i + tile * t.channels);
        pass.at(i, LANES, Whole{});
      }
      end(pass, at);
    }
    if (at < width) {
      begin(pass, at);
      for (int64_t row = row0, i = first + at; row < row1; row++, i += t.channels)
        pass.at(i, (int)(width - at), Part{});
      end(pass, at);
    }
  }
}

// Calls body(block) for the blocks of a rectangle's rows, the first of `first` rows.
template <class Body>
INLINE void each_block(const Rectangle& part, int64_t first, Body&& body) {
  int64_t rows = first;
  for (int64_t row = part.row0; row < part.row1; rows = BLOCK) {
    Rectangle block = part;
    block.row0 = row;
    block.row1 = row = smaller(part.row1, row + rows);
    body(block);
  }
}

// A rectangle's moments: double sums over blocks, float sums within.
struct ColumnMoments {
  int64_t width;
  Buffer<float> origin, s, q;
  Buffer<double> mean, m2;
  double count = 0;
  explicit ColumnMoments(int64_t columns)
      : width(padded(columns)), origin(width), s(width), q(width), mean(width), m2(width) {}

  void close(double n) {
    double both = count + n, inverse = 1.0 / n, share = n / both, weight = count * share;
    for (int64_t i = 0; i < width; i++) {
      double delta = origin[i] + s[i] * inverse - mean[i];
      m2[i] += q[i] - (double)s[i] * s[i] * inverse + delta * delta * weight;
      mean[i] += delta * share;
      origin[i] = (float)mean[i];
      s[i] = q[i] = 0.0f;
    }
    count = both;
  }
};

template <class T>
struct Summing {
  const T* z;
  F origin{}, s{}, q{};
  INLINE_MEMBER void fetch(int64_t i) { __builtin_prefetch(z + i); }
  template <class W>
  INLINE_MEMBER void at(int64_t i, int n, W w) {
    F v = read(z + i, n, w) - origin;
    s += v;
    q += v * v;
  }
};

template <class T>
INLINE void column_moments(const Task& t, int64_t base, const Rectangle& part, ColumnMoments& m) {
  const T* z = (const T*)t.z;
  if (part.row0 == part.row1) return;
  for (int64_t j = part.column0; j < part.column1; j++)
    m.origin[j - part.column0] = load_first(z + base + part.row0 * t.channels + j, 1)[0];
  // The first block is small, and gives the others a good origin.
  each_block(part, 8, [&](const Rectangle& block) {
    run_tiles(
        t, base, block, Summing<T>{z},
        [&](auto& pass, int64_t at) {
          pass.origin = get(&m.origin[at]);
          pass.s = get(&m.s[at]);
          pass.q = get(&m.q[at]);
        },
        [&](auto& pass, int64_t at) {
          put(&m.s[at], pass.s);
          put(&m.q[at], pass.q);
        });
    m.close((double)(block.row1 - block.row0));
  });
}

// A rectangle's sums of the backward, in the order of Totals.
struct ColumnTotals {
  int64_t width;
  Buffer<float> sums;
  Buffer<double> totals;
  explicit ColumnTotals(int64_t columns)
      : width(padded(columns)), sums(4 * width), totals(4 * width) {}
  void close() {
    for (int64_t i = 0; i < 4 * width; i++) {
      totals[i] += sums[i];
      sums[i] = 0.0f;
    }
  }
  Totals at(int64_t i) const {
    return {totals[i], totals[width + i], totals[2 * width + i], totals[3 * width + i]};
  }
};

template <class Form, class Pass>
INLINE void column_totals(const Task& t, int64_t base, const Rectangle& part, const Table& table,
                          const Pass& prepared, ColumnTotals& total) {
  float* sums = total.sums.at;
  int64_t width = total.width;
  auto add_to = [](float* to, F more) { put(to, get(to) + more); };
  each_block(part, BLOCK, [&](const Rectangle& block) {
    run_tiles(
        t, base, block, prepared,
        [&](auto& pass, int64_t at) {
          pass.begin(table.coefficients(at));
          pass.s = Sums{};
        },
        [&](auto& pass, int64_t at) {
          if (Form::gate) {
            add_to(sums + at, pass.s.dt);
            add_to(sums + width + at, pass.s.dtc);
          }
          if (Form::norm) {
            add_to(sums + 2 * width + at, pass.s.gs);
            add_to(sums + 3 * width + at, pass.s.gsc);
          }
        });
    total.close();
  });
}

template <class T, class Form>
INLINE void columns_apply_forward(const Task& t, int64_t base, const Rectangle& part,
                                  const Table& table) {
  each_block(part, BLOCK, [&](const Rectangle& block) {
    run_tiles(
        t, base, block, Forward<T, Form>(t),
        [&](auto& pass, int64_t at) { pass.begin(table.coefficients(at)); },
        [](auto&, int64_t) {});
  });
}
template <class T, class Form>
INLINE void columns_apply_backward(const Task& t, int64_t base, const Rectangle& part,
                                   const Table& table) {
  each_block(part, BLOCK, [&](const Rectangle& block) {
    run_tiles(
        t, base, block, Apply<T, Form>(t),
        [&](auto& pass, int64_t at) {
          pass.begin(table.coefficients(at), table.corrections(at));
        },
        [](auto&, int64_t) {});
  });
}

template <class Body>
INLINE void each_strip(const Task& t, Body&& body) {
  int64_t across = (t.channels + STRIP - 1) / STRIP, items = t.groups * across;
  int threads = (int)smaller(t.threads, items);
#pragma omp parallel num_threads(threads)
  {
    Buffer<float> buffer(TABLE_ROWS * (STRIP + LANES));
    Table table{buffer.at, STRIP + LANES};
    int64_t id = omp_get_thread_num(), all = omp_get_num_threads();
    for (int64_t item = items * id / all; item < items * (id + 1) / all; item++) {
      int64_t g = item / across, column0 = item % across * STRIP;
      body(g, Rectangle{0, t.outer, column0, smaller(t.channels, column0 + STRIP)}, table);
    }
  }
}

template <class Body>
INLINE void each_range(const Task& t, Body&& body) {
  int threads = (int)smaller(t.threads, 1 + t.outer / 8);
#pragma omp parallel num_threads(threads)
  {
    int64_t id = omp_get_thread_num(), all = omp_get_num_threads();
    body(id, all, Rectangle{t.outer * id / all, t.outer * (id + 1) / all, 0, t.channels});
  }
}

// Merges the parts' moments of columns k0 to k1, in the parts' order whoever does it.
template <class Form>
INLINE void merged_coefficients(const Task& t, const Table& table, ColumnMoments* const* parts,
                                int64_t all, int64_t k0, int64_t k1) {
  Buffer<double> mean(k1 - k0), m2(k1 - k0);
  double count = 0;
  for (int64_t p = 0; p < all; p++) {
    double more = parts[p]->count, both = count + more;
    if (more == 0) continue;
    double share = more / both, weight = count * share;
    const double *means = parts[p]->mean.at + k0, *squares = parts[p]->m2.at + k0;
#pragma omp simd
    for (int64_t i = 0; i < k1 - k0; i++) {
      double delta = means[i] - mean.at[i];
      mean.at[i] += delta * share;
      m2.at[i] += squares[i] + delta * delta * weight;
    }
    count = both;
  }
  double inverse = 1.0 / count;
#pragma omp simd
  for (int64_t i = 0; i < k1 - k0; i++) {
    double var = variance(m2.at[i], inverse);
    t.mean[k0 + i] = (float)mean.at[i];
    t.var[k0 + i] = (float)var;
    train_coefficients<Form>(t, table, k0 + i, k0 + i, mean.at[i], var);
  }
}

template <class Form>
INLINE void merged_gradients(const Task& t, const Table& table, ColumnTotals* const* parts,
                             int64_t all, int64_t k0, int64_t k1) {
  int64_t width = parts[0]->width;
  double* sums = parts[0]->totals.at;  // gathers the others': each thread has its own columns
  for (int64_t p = 1; p < all; p++)
    for (int64_t row = 0; row < 4; row++) {
      const double* more = parts[p]->totals.at + row * width;
#pragma omp simd
      for (int64_t k = k0; k < k1; k++) sums[row * width + k] += more[k];
    }
#pragma omp simd
  for (int64_t k = k0; k < k1; k++)
    train_gradients<Form>(t, table, k, k, k,
                          {sums[k], sums[width + k], sums[2 * width + k], sums[3 * width + k]});
  if (t.outer * t.inner == 1)
    for (int64_t k = k0; k < k1; k++) train_gradient_of_one(t, table, k);
}

template <class T, class Form>
void columns_forward(const Task& t, bool fixed) {
  int64_t size = t.outer * t.channels;
  if (!fixed && t.groups > 1) {
    each_strip(t, [&](int64_t g, const Rectangle& part, const Table& table) {
      ColumnMoments m(part.column1 - part.column0);
      column_moments<T>(t, g * size, part, m);
      for (int64_t k = part.column0; k < part.column1; k++) {
        int64_t at = k - part.column0, j = g * t.channels + k;
        Moments one{m.count, m.mean[at], m.m2[at]};
        t.mean[j] = (float)one.mean;
        t.var[j] = (float)one.var();
        train_coefficients<Form>(t, table, at, k, one.mean, one.var());
      }
      columns_apply_forward<T, Form>(t, g * size, part, table);
    });
    return;
  }
  Buffer<float> buffer(TABLE_ROWS * (t.channels + LANES));
  Table table{buffer.at, t.channels + LANES};
  Buffer<ColumnMoments*> parts(t.threads);
  if (fixed)
    for (int64_t k = 0; k < t.channels; k++) fixed_coefficients(t, table, k, k);
  each_range(t, [&](int64_t id, int64_t all, const Rectangle& part) {
    if (!fixed) {
      ColumnMoments mine(t.channels);
      parts[id] = &mine;
      column_moments<T>(t, 0, part, mine);
#pragma omp barrier
      merged_coefficients<Form>(t, table, parts.at, all, t.channels * id / all,
                                t.channels * (id + 1) / all);
#pragma omp barrier
    }
    columns_apply_forward<T, Form>(t, 0, part, table);
  });
}

template <class T, class Form>
void columns_backward(const Task& t, bool fixed) {
  int64_t size = t.outer * t.channels;
  if (!fixed && t.groups > 1) {
    each_strip(t, [&](int64_t g, const Rectangle& part, const Table& table) {
      for (int64_t k = part.column0; k < part.column1; k++) {
        int64_t j = g * t.channels + k;
        train_coefficients<Form>(t, table, k - part.column0, k, t.mean[j], t.var[j]);
      }
      ColumnTotals total(part.column1 - part.column0);
      column_totals<Form>(t, g * size, part, table, Reduce<T, Form, false>(t), total);
      for (int64_t k = part.column0; k < part.column1; k++) {
        int64_t at = k - part.column0;
        train_gradients<Form>(t, table, at, g * t.channels + k, k, total.at(at));
        train_gradient_of_one(t, table, at);
      }
      columns_apply_backward<T, Form>(t, g * size, part, table);
    });
    return;
  }
  Buffer<float> buffer(TABLE_ROWS * (t.channels + LANES));
  Table table{buffer.at, t.channels + LANES};
  if (fixed) {
    for (int64_t k = 0; k < t.channels; k++) fixed_coefficients(t, table, k, k);
  } else {
#pragma omp simd
    for (int64_t k = 0; k < t.channels; k++)
      train_coefficients<Form>(t, table, k, k, t.mean[k], t.var[k]);
  }
  Buffer<ColumnTotals*> parts(t.threads);
  each_range(t, [&](int64_t id, int64_t all, const Rectangle& part) {
    ColumnTotals mine(t.channels);
    parts[id] = &mine;
    if (fixed) {
      column_totals<Form>(t, 0, part, table, Reduce<T, Form, true>(t), mine);
    } else {
      column_totals<Form>(t, 0, part, table, Reduce<T, Form, false>(t), mine);
    }
#pragma omp barrier
    int64_t k0 = t.channels * id / all, k1 = t.channels * (id + 1) / all;
    if (fixed) {
      for (int64_t k = k0; k < k1; k++) {
        Totals total;
        for (int64_t p = 0; p < all; p++) {
          Totals more = parts[p]->at(k);
          total.dt += more.dt, total.dtc += more.dtc;
          total.gs += more.gs, total.gsc += more.gsc;
        }
        fixed_gradients(t, k, total);
      }
    } else {
      merged_gradients<Form>(t, table, parts.at, all, k0, k1);
    }
#pragma omp barrier  // also before the other threads' sums are given back
    if (!fixed) {
      columns_apply_backward<T, Form>(t, 0, part, table);
    }
  });
}

}  // namespace NORMATTN_ISA
