// The plain C interface: no torch, no Python. cpu/_library.py is its other side.
#include <cstdint>

#include "layer.h"
#include "task.h"

#if defined(__x86_64__)
namespace avx512 {
void run(const Task&, bool half, bool backward, bool fixed);
}
namespace avx2 {
void run(const Task&, bool half, bool backward, bool fixed);
}
#endif
namespace baseline {
void run(const Task&, bool half, bool backward, bool fixed);
}
namespace counted {
void run(const Task&, bool half, bool backward, bool fixed);
extern int64_t accesses;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// The version of the package that this was built for; Python refuses another.
EXPORT const char* normattn_version() { return NORMATTN_VERSION; }

// How both sides talk to each other: a checksum of this file and task.h, and the size of a task.
EXPORT const char* normattn_interface() { return NORMATTN_INTERFACE; }
EXPORT int normattn_task_size() { return (int)(sizeof(Task) + sizeof(Layer)); }

enum { BASELINE, AVX2, AVX512, COUNTED };

// The best instruction set that this processor has and this file was built with.
EXPORT int normattn_best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    return AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
  return BASELINE;
}

EXPORT void normattn_run(const Task* task, int instructions, int half, int backward, int fixed) {
  switch (instructions) {
#if defined(__x86_64__)
    case AVX512:
      return avx512::run(*task, half, backward, fixed);
    case AVX2:
      return avx2::run(*task, half, backward, fixed);
#endif
    case COUNTED:
      return counted::run(*task, half, backward, fixed);
    default:
      return baseline::run(*task, half, backward, fixed);
  }
}

// The same for the layer of a module, with one statistic a vector (groups = 1).
EXPORT void normattn_layer(Task* task, const Layer* of, int instructions, int half, int backward,
                           int fixed) {
  fixed ? layer::fixed_vectors(*task, *of) : layer::batch_vectors(*task, *of, backward);
  normattn_run(task, instructions, half, backward, fixed);
  if (backward)
    layer::weigh_gradients(*task, *of);
  else if (!fixed)
    layer::track(*task, *of);
}

EXPORT int64_t normattn_accesses(int reset) {
  int64_t count = counted::accesses;
  if (reset) counted::accesses = 0;
  return count;
}
