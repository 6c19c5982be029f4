/* For processors that have AVX2: see native.c. */

#include "sums.h"

#ifdef HAS_AVX2_SUMS
#pragma GCC target("avx2") /* of all that is in this file, inline functions of headers among it */
#define SUMS_OF_BLOCKS sums_of_blocks_avx2
#define FIRST_BAD_BLOCK first_bad_block_avx2
#include "each_block.h"
#endif
