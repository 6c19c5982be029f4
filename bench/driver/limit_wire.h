/*
 * What iscsi_load and limit_target say to each other over TCP: a header of 48 bytes, as long as iSCSI's, and data.
 *
 * Requests are answered in their order.  The data of a write follows its request, the data of a read its answer,
 * unless that reports an error.  Numbers are in the machine's own byte order: both ends are on one machine.
 */
#ifndef LIMIT_WIRE_H
#define LIMIT_WIRE_H

#include <stdint.h>

enum { LIMIT_MAGIC = 0x4c494d31, LIMIT_HEADER_BYTES = 48, LIMIT_DATA_BYTES_MAX = 4 << 20 };

enum limit_verb {
        LIMIT_READ = 1,
        LIMIT_WRITE,
        LIMIT_FLUSH, /* answered when everything written before is on stable storage */
        LIMIT_SIZE,  /* the answer's length is the size of the disk */
};

struct limit_header {
        uint32_t magic;
        uint32_t verb;
        uint32_t tag;    /* comes back in the answer */
        uint32_t status; /* of an answer: 0, or an errno */
        uint64_t offset_bytes;
        uint64_t length_bytes;
        unsigned char unused[16];
};

_Static_assert(sizeof(struct limit_header) == LIMIT_HEADER_BYTES, "as long as an iSCSI header");

#endif
