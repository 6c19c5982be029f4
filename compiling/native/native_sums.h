/* See native_sums.c. */

#pragma once

#include <stddef.h>

enum { BLOCK_BYTES = 4096, SUM_BYTES = 8 };

/* On x86-64, with GCC, a second one is made for processors that have AVX2: it takes half the time. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(WITHOUT_AVX2)
#define HAS_AVX2_SUMS 1
#endif

typedef void sums_of_blocks(const unsigned char *data, size_t size_bytes, unsigned char *sums);

sums_of_blocks sums_of_blocks_any;
sums_of_blocks sums_of_blocks_avx2;
