// All kernels for one instruction set. The including file names it:
//   NORMATTN_ISA    the namespace
//   NORMATTN_BYTES  the width of a register
//   NORMATTN_TARGET what GCC and clang call it; empty for the compiler's default
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#ifdef _OPENMP
#include <omp.h>
#else  // one thread
static inline int omp_get_thread_num() { return 0; }
static inline int omp_get_num_threads() { return 1; }
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "task.h"

// What stands before this line is the same for every instruction set, what follows is not.
#define NORMATTN_PRAGMA(text) _Pragma(#text)
#if defined(NORMATTN_TARGET) && defined(__clang__)
#define NORMATTN_PUSH(name) \
  NORMATTN_PRAGMA(clang attribute push(__attribute__((target(name))), apply_to = function))
NORMATTN_PUSH(NORMATTN_TARGET)
#elif defined(NORMATTN_TARGET)
#define NORMATTN_PUSH(name) NORMATTN_PRAGMA(GCC target name)
NORMATTN_PUSH(NORMATTN_TARGET)
#endif

#include "vector.h"
#include "element.h"
#include "passes.h"
#include "planes.h"
#include "columns.h"

namespace NORMATTN_ISA {

template <class T, class Form>
void run(const Task& t, bool backward, bool fixed) {
  if (t.inner > 1)
    backward ? planes_backward<T, Form>(t, fixed) : planes_forward<T, Form>(t, fixed);
  else
    backward ? columns_backward<T, Form>(t, fixed) : columns_forward<T, Form>(t, fixed);
}

template <class T>
void dispatch(const Task& t, bool backward, bool fixed) {
  bool norm = fixed ? t.p : t.weight, gate = fixed ? t.slope : t.scale;
  bool residual = backward ? t.dresidual : t.residual;
  if (norm && gate && residual) return run<T, Form<true, true, true>>(t, backward, fixed);
  if (norm && gate) return run<T, Form<true, true, false>>(t, backward, fixed);
  if (norm && residual) return run<T, Form<true, false, true>>(t, backward, fixed);
  if (norm) return run<T, Form<true, false, false>>(t, backward, fixed);
  if (residual) return run<T, Form<false, true, true>>(t, backward, fixed);
  return run<T, Form<false, true, false>>(t, backward, fixed);
}

void run(const Task& t, bool half, bool backward, bool fixed) {
  half ? dispatch<bfloat16>(t, backward, fixed) : dispatch<float>(t, backward, fixed);
}

}  // namespace NORMATTN_ISA

#if defined(NORMATTN_TARGET) && defined(__clang__)  // which insists; GCC's ends with the file
#pragma clang attribute pop
#endif
