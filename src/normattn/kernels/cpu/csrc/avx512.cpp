#if defined(__x86_64__)
#define NORMATTN_ISA avx512
#define NORMATTN_BYTES 64
#define NORMATTN_TARGET "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"
#include "isa.h"
#endif
