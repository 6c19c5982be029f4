/* The checksums of blocks, once for each kind of processor: see native.c. */

#define XXH_INLINE_ALL
#if !__has_include(<xxhash.h>)
#error "xxhash.h is missing, version 0.8 or later; on Debian: apt install libxxhash-dev"
#endif
#include <xxhash.h>
#if XXH_VERSION_NUMBER < 800
#error "xxhash.h is older than version 0.8: its XXH3 is another"
#endif

#include <stdint.h>
#include <string.h>

#include "sums.h"

/* Little-endian, as it is kept. */
static uint64_t sum_of_block(const unsigned char *data, size_t size_bytes)
{
    uint64_t hash = XXH3_64bits(data, size_bytes);
    if (!hash)
        hash = 1; /* 0 says that a checksum is not known */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    hash = __builtin_bswap64(hash);
#endif
    return hash;
}

void SUMS_OF_BLOCKS(const unsigned char *data, size_t size_bytes, unsigned char *sums)
{
    for (; size_bytes; sums += SUM_BYTES) {
        size_t block_bytes = size_bytes < BLOCK_BYTES ? size_bytes : BLOCK_BYTES;
        uint64_t sum = sum_of_block(data, block_bytes);
        memcpy(sums, &sum, SUM_BYTES);
        data += block_bytes;
        size_bytes -= block_bytes;
    }
}

ptrdiff_t FIRST_BAD_BLOCK(const unsigned char *data, size_t size_bytes, const unsigned char *sums)
{
    for (ptrdiff_t number = 0; size_bytes; number++, sums += SUM_BYTES) {
        size_t block_bytes = size_bytes < BLOCK_BYTES ? size_bytes : BLOCK_BYTES;
        uint64_t known;
        memcpy(&known, sums, SUM_BYTES);
        if (known && known != sum_of_block(data, block_bytes))
            return number;
        data += block_bytes;
        size_bytes -= block_bytes;
    }
    return -1;
}
