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

// Vectors of coefficients; these are not counted, and are padded to whole vectors.
INLINE F get(const float* from) {
  F v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
INLINE void put(float* to, F v) { std::memcpy(to, &v, sizeof v); }

// Elements of a feature map. LOAD and STORE move whole vectors, the others the first n lanes.
INLINE F load(const float* from) {
  COUNT(LANES);
  return get(from);
}
INLINE void store(float* to, F v) {
  COUNT(LANES);
  put(to, v);
}
INLINE F load(const bfloat16* from) {
  COUNT(LANES);
  H half;
  std::memcpy(&half, from, sizeof half);
  return (F)(__builtin_convertvector(half, U) << 16);
}
INLINE void store(bfloat16* to, F v) {
  COUNT(LANES);
  U bits = (U)v;
  U rounded = bits + 0x7fffu + ((bits >> 16) & 1u);  // to nearest, ties to even
  U quiet = U{} + 0x7fc00000u;                       // rounding could turn a NaN into infinity
  H half = __builtin_convertvector((v != v ? quiet : rounded) >> 16, H);
  std::memcpy(to, &half, sizeof half);
}
template <class T>
INLINE F load_first(const T* from, int n, float rest = 0.0f) {
  F v = splat(rest);
  for (int i = 0; i < n; i++) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + (4 - sizeof(T)), from + i, sizeof(T));
    float value;
    std::memcpy(&value, &bits, 4);
    v[i] = value;
  }
  COUNT(n);
  return v;
}
template <class T>
INLINE void store_first(T* to, F v, int n) {
  T whole[LANES];
#ifdef NORMATTN_COUNT
  int64_t before = accesses;
#endif
  store(whole, v);
#ifdef NORMATTN_COUNT
  accesses = before + n;
#endif
  std::memcpy(to, whole, n * sizeof(T));
}

INLINE double sum(F v) {
  double total = 0.0;
  for (int i = 0; i < LANES; i++) total += v[i];
  return total;
}

// The smaller and the larger of two, in the operand order in which x86 passes on a NaN in v.
INLINE F at_most(F bound, F v) { return bound < v ? bound : v; }
INLINE F at_least(F bound, F v) { return bound > v ? bound : v; }

// 2^v within 8e-8 of itself, for |v| <= 126 and clamped there. Polynomial: our own least-squares
// fit of the relative error over [-1/2, 1/2], reweighted to be equal-ripple.
INLINE F exp2(F v) {
  v = at_least(splat(-126.0f), at_most(splat(126.0f), v));
  // Adding 1.5·2^23 rounds to an integer, which then stands in the low bits.
  const F magic = splat(12582912.0f);
  F shifted = v + magic;
  F r = v - (shifted - magic);
  F y = splat(0.001327647129073739f);
  y = y * r + 0.009675540961325169f;
  y = y * r + 0.05550713092088699f;
  y = y * r + 0.24022120237350464f;
  y = y * r + 0.6931469440460205f;
  y = y * r + 1.0000001192092896f;
  return (F)((I)y + ((I)shifted << 23));
}

constexpr float LOG2E = 1.44269504088896340736f;
constexpr float LN2 = 0.69314718055994530942f;
constexpr float NOTHING = std::numeric_limits<float>::quiet_NaN();

}  // namespace NORMATTN_ISA
