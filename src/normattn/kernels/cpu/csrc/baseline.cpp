// What every processor of the platform has: SSE2 on x86, NEON on 64-bit ARM.
#define NORMATTN_ISA baseline
#define NORMATTN_BYTES 16
#include "isa.h"
