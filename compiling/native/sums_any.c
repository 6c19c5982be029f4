/* For every processor that the compiler makes code for: see native.c. */

#define SUMS_OF_BLOCKS sums_of_blocks_any
#define FIRST_BAD_BLOCK first_bad_block_any
#include "each_block.h"
