// The three passes over a feature map, each a functor on one vector of elements. `whole` is known
// when compiled; only the last vector of a plane or row may have fewer lanes, n of them. fetch(i)
// asks for elements that will be needed soon; it may point anywhere.
namespace NORMATTN_ISA {

struct Whole {
  static constexpr bool value = true;
};
struct Part {
  static constexpr bool value = false;
};

template <class T, class W>
INLINE F read(const T* from, int n, W) {
  return W::value ? load(from) : load_first(from, n);
}
template <class T, class W>
INLINE void write(T* to, F v, int n, W) {
  W::value ? store(to, v) : store_first(to, v, n);
}

template <class T, class Form>
struct Forward {
  const T *z, *residual;
  T* out;
  F floor;
  Coefficients k{};

  explicit Forward(const Task& t)
      : z((const T*)t.z),
        residual((const T*)t.residual),
        out((T*)t.out),
        floor(splat(t.relu ? 0.0f : NOTHING)) {}
  INLINE_MEMBER void begin(const Coefficients& to) { k = to; }
  INLINE_MEMBER void fetch(int64_t i) {
    __builtin_prefetch(z + i);
    if (Form::residual) __builtin_prefetch(residual + i);
  }
  template <class W>
  INLINE_MEMBER void at(int64_t i, int n, W w) {
    F r = Form::residual ? read(residual + i, n, w) : F{};
    write(out + i, forward_element<Form>(read(z + i, n, w), r, k, floor), n, w);
  }
};

// The backward's sums. It writes the residual's gradient, which the next pass reads instead of dy
// and the mask; with fixed statistics (Final) it writes dz as well, and there is no next pass.
template <class T, class Form, bool Final>
struct Reduce {
  const T *z, *dy, *result;
  T *dz, *dresidual;
  F floor;
  Coefficients k{};
  Sums s{};

  explicit Reduce(const Task& t)
      : z((const T*)t.z),
        dy((const T*)t.dy),
        result((const T*)t.result),
        dz((T*)t.dz),
        dresidual((T*)t.dresidual),
        floor(splat(t.relu ? 0.0f : NOTHING)) {}
  INLINE_MEMBER void begin(const Coefficients& to) { k = to; }
  INLINE_MEMBER void fetch(int64_t i) {
    __builtin_prefetch(z + i);
    __builtin_prefetch(dy + i);
    if (Form::residual && result) __builtin_prefetch(result + i);
  }
  template <class W>
  INLINE_MEMBER void at(int64_t i, int n, W w) {
    F o = Form::residual && result ? read(result + i, n, w) : splat(1.0f);
    Gradient d = backward_element<Form>(read(z + i, n, w), read(dy + i, n, w), o, k, floor);
    if (Form::residual) write(dresidual + i, d.g, n, w);
    add<Form>(s, d);  // lanes beyond n have dy = 0 and add nothing
    if (Final) write(dz + i, direct<Form>(d, k), n, w);
  }
};

template <class T, class Form>
struct Apply {
  const T *z, *g;
  T* dz;
  F floor;
  Coefficients k{};
  Corrections c{};

  explicit Apply(const Task& t)
      : z((const T*)t.z),
        g((const T*)(Form::residual ? t.dresidual : t.dy)),
        dz((T*)t.dz),
        // A residual's gradient is masked already.
        floor(splat(t.relu && !Form::residual ? 0.0f : NOTHING)) {}
  INLINE_MEMBER void begin(const Coefficients& to, const Corrections& more) {
    k = to;
    c = more;
  }
  INLINE_MEMBER void fetch(int64_t i) {
    __builtin_prefetch(z + i);
    __builtin_prefetch(g + i);
  }
  template <class W>
  INLINE_MEMBER void at(int64_t i, int n, W w) {
    Gradient d =
        backward_element<Form>(read(z + i, n, w), read(g + i, n, w), splat(1.0f), k, floor);
    write(dz + i, direct<Form>(d, k) + (c.constant + c.linear * d.c), n, w);
  }
};

}  // namespace NORMATTN_ISA
