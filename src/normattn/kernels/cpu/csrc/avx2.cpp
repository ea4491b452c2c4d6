#if defined(__x86_64__)
#define NORMATTN_ISA avx2
#define NORMATTN_BYTES 32
#define NORMATTN_TARGET "avx2,fma"
#include "isa.h"
#endif
