/* What carries iscsi_load's commands: libiscsi (iscsi://), or the bare protocol of limit_wire.h (raw://). */
#ifndef TRANSPORT_H
#define TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum {
        SECTOR_BYTES = 512,
        DEPTH_MAX = 256,
        STALL_S = 60, /* without any answer we give up: longer than a failover, shorter than a CI job */
        EXIT_FAILED = 1,
        EXIT_USAGE = 2,
        EXIT_MISMATCH = 3,
};

enum verb { READ, WRITE };

/* A command and its buffer, which is the transport's from `submit` to `answered`. */
struct slot {
        unsigned char *buffer;
        struct scsi_iovec iov; /* the part of `buffer` that this command reads or writes */
        enum verb verb;
        uint64_t first_sector;
        uint64_t began_ns;
        int64_t pool_phase; /* of what `buffer` holds behind the stamps; -1: something else */
        struct slot *next_idle;
};

/* One connection; every function ends the program when it cannot do what it is for. */
struct transport {
        void (*connect)(const char *url);
        uint64_t (*capacity)(uint32_t *block_bytes); /* bytes of the disk and of its logical blocks */
        void (*submit)(struct slot *slot);           /* queue it: it leaves with the next `service(POLLOUT)` */
        int (*fd)(void);
        int (*wanted_events)(void);   /* what to wait for, as poll(2) has it; 0: the connection was lost */
        void (*service)(int events);  /* send or receive what is possible now, and call `answered` */
        void (*flush)(void);          /* nothing may be in flight */
        void (*disconnect)(void);
};

extern const struct transport libiscsi_transport;
extern const struct transport raw_transport;

/* In iscsi_load.c. */
extern bool cork; /* see --cork */
void answered(struct slot *slot);
__attribute__((noreturn, format(printf, 2, 3))) void fail(int code, const char *format, ...);

#endif
