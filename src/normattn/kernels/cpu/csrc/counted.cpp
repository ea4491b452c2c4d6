// For tests alone: as the baseline, on one thread, and counts its accesses to feature maps.
#define NORMATTN_ISA counted
#define NORMATTN_BYTES 16
#define NORMATTN_COUNT
#include "isa.h"
