/* For every processor that the compiler makes code for: see native_sums.c. */

#define SUMS_OF_BLOCKS sums_of_blocks_any
#include "each_block.h"
