// Vectors of float32 by the compiler's own vector types, so that one source serves every
// instruction set. Included once for each, with NORMATTN_ISA its namespace and NORMATTN_BYTES the
// width of a register.

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))

namespace NORMATTN_ISA {

constexpr int LANES = NORMATTN_BYTES / 4;
typedef float F __attribute__((vector_size(NORMATTN_BYTES)));
typedef int32_t I __attribute__((vector_size(NORMATTN_BYTES)));
typedef uint32_t U __attribute__((vector_size(NORMATTN_BYTES)));
typedef uint16_t H __attribute__((vector_size(NORMATTN_BYTES / 2)));

struct bfloat16 {
  uint16_t bits;
};

#ifdef NORMATTN_COUNT
// One build, for tests alone, counts the elements of feature maps that it reads and writes.
inline int64_t accesses = 0;
#define COUNT(n) (accesses += (n))
#else
#define COUNT(n) ((void)0)
#endif

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE F splat(float v) { return F{} + v; }

// Zeros to begin with. Not std::vector: the linker keeps one instance of a template for all
// instruction sets, and it could be one that this processor does not have.
template <class T>
struct Buffer {
  T* at;
  explicit Buffer(int64_t n) : at((T*)std::calloc(n + 1, sizeof(T))) {
    if (!at) std::abort();
  }
  ~Buffer() { std::free(at); }
  Buffer(const Buffer&) = delete;
  T& operator[](int64_t i) { return at[i]; }
  const T& operator[](int64_t i) const { return at[i]; }
};

INLINE F get(const float* from) {
  F v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
INLINE void put(float* to, F v) { std::memcpy(to, &v, sizeof v); }
INLINE F get(const bfloat16* from) {
  H half;
  std::memcpy(&half, from, sizeof half);
  return (F)(__builtin_convertvector(half, U) << 16);
}
INLINE void put(bfloat16* to, F v) {
  U bits = (U)v;
  U rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to nearest, ties to even
  U quiet = U{} + 0x7fc00000u;                       // rounding could turn a NaN into infinity
  H half = __builtin_convertvector((v != v ? quiet : rounded) >> 16, H);
  std::memcpy(to, &half, sizeof half);
}

// Elements of a feature map, unlike coefficients, are counted: a whole vector, or its first n lanes
// with `rest` in the others.
template <class T>
INLINE F load(const T* from) {
  COUNT(LANES);
  return get(from);
}
template <class T>
INLINE void store(T* to, F v) {
  COUNT(LANES);
  put(to, v);
}
// The first n lanes of a vector in memory, the others from `rest`.
#if NORMATTN_BYTES == 64
INLINE __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1); }
INLINE F get_first(const float* from, int n, F rest) {
  return (F)_mm512_mask_loadu_ps((__m512)rest, first_lanes(n), from);
}
INLINE void put_first(float* to, F v, int n) {
  _mm512_mask_storeu_ps(to, first_lanes(n), (__m512)v);
}
INLINE F get_first(const bfloat16* from, int n, F rest) {
  __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), from));
  return (F)_mm512_mask_slli_epi32((__m512i)rest, first_lanes(n), bits, 16);
}
INLINE void put_first(bfloat16* to, F v, int n) {
  bfloat16 whole[LANES];
  put(whole, v);
  _mm256_mask_storeu_epi16(to, first_lanes(n), _mm256_loadu_si256((const __m256i*)whole));
}
#else
template <class T>
INLINE F get_first(const T* from, int n, F rest) {
  T whole[LANES];
  put(whole, rest);
  std::memcpy(whole, from, n * sizeof(T));
  return get(whole);
}
template <class T>
INLINE void put_first(T* to, F v, int n) {
  T whole[LANES];
  put(whole, v);
  std::memcpy(to, whole, n * sizeof(T));
}
#endif
template <class T>
INLINE F load_first(const T* from, int n, F rest = F{}) {
  COUNT(n);
  return get_first(from, n, rest);
}
template <class T>
INLINE void store_first(T* to, F v, int n) {
  COUNT(n);
  put_first(to, v, n);
}

// The lanes' sum in double, along four chains.
INLINE double sum(F v) {
  double s[4] = {};
  for (int i = 0; i < LANES; i += 4)
    for (int u = 0; u < 4; u++) s[u] += v[i + u];
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// v, but at most `bound`; a NaN stays one.
#if NORMATTN_BYTES == 64
INLINE F at_most(float bound, F v) { return (F)_mm512_min_ps((__m512)splat(bound), (__m512)v); }
INLINE F at_least(float bound, F v) { return (F)_mm512_max_ps((__m512)splat(bound), (__m512)v); }
#else
INLINE F at_most(float bound, F v) { return bound < v ? splat(bound) : v; }
INLINE F at_least(float bound, F v) { return bound > v ? splat(bound) : v; }
#endif

// 2^r within 8e-8 of itself, for |r| <= 1/2. Our own least-squares fit of the relative error,
// reweighted to be equal-ripple; added up in pairs, since what follows waits for the result.
INLINE F exp2_fraction(F r) {
  F square = r * r;
  F high = r * 0.001327647129073739f + 0.009675540961325169f;
  F middle = r * 0.05550713092088699f + 0.24022120237350464f;
  F low = r * 0.6931469440460205f + 1.0000001192092896f;
  return (high * square + middle) * square + low;
}

// 2^v; what is above 2^126 is 2^126, so that a sum with 1 and its inverse stay finite.
INLINE F exp2(F v) {
  v = at_most(126.0f, v);
#if NORMATTN_BYTES == 64
  F whole = (F)_mm512_roundscale_ps((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  return (F)_mm512_scalef_ps((__m512)exp2_fraction(v - whole), (__m512)whole);
#else
  v = at_least(-126.0f, v);
  const F magic = splat(12582912.0f);  // adding 1.5·2^23 leaves an integer, in the low bits
  F shifted = v + magic;
  return (F)((I)exp2_fraction(v - (shifted - magic)) + ((I)shifted << 23));
#endif
}

constexpr float LOG2E = 1.44269504088896340736f;
constexpr float LN2 = 0.69314718055994530942f;
constexpr float NOTHING = std::numeric_limits<float>::quiet_NaN();

}  // namespace NORMATTN_ISA
