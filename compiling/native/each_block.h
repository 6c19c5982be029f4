/* The checksums of blocks, once for each kind of processor: see native_sums.c. */

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

#include "native_sums.h"

void SUMS_OF_BLOCKS(const unsigned char *data, size_t size_bytes, unsigned char *sums)
{
    for (; size_bytes; sums += SUM_BYTES) {
        size_t block_bytes = size_bytes < BLOCK_BYTES ? size_bytes : BLOCK_BYTES;
        uint64_t hash = XXH3_64bits(data, block_bytes);
        if (!hash)
            hash = 1; /* 0 says that a checksum is not known */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        hash = __builtin_bswap64(hash);
#endif
        memcpy(sums, &hash, SUM_BYTES);
        data += block_bytes;
        size_bytes -= block_bytes;
    }
}
