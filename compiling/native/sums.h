/* The checksums of blocks: see native.c. */

#pragma once

#include <stddef.h>

enum { BLOCK_BYTES = 4096, SUM_BYTES = 8 };

/* On x86-64, with GCC, there are second ones for processors that have AVX2: they take half the time. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(WITHOUT_AVX2)
#define HAS_AVX2_SUMS 1
#endif

/* Of all blocks of `data`, the last of which may be short, into `sums`. */
typedef void sums_of_blocks(const unsigned char *data, size_t size_bytes, unsigned char *sums);
/* The number of the first block of `data` whose checksum is known and another one; -1 if there is none. */
typedef ptrdiff_t first_bad_block(const unsigned char *data, size_t size_bytes, const unsigned char *sums);

sums_of_blocks sums_of_blocks_any;
sums_of_blocks sums_of_blocks_avx2;
first_bad_block first_bad_block_any;
first_bad_block first_bad_block_avx2;
