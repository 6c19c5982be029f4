/*
 * limit_target: the least that a target can do.  It moves the same bytes as an iSCSI target over a file in the page
 * cache, with the system calls of an ideal one, and nothing else: no iSCSI, no SCSI, no checksums, no snapshots.
 * What is left is the price of the kernel.
 *
 * Theory.  For each batch: one recv for whatever has come; one pread or pwrite for each request that is complete;
 * one sendmsg for all their answers; epoll_wait only when nothing is there.  So every byte is copied twice here, as
 * in pyjiva's target: page cache, this program, socket, or the other way.  Requests come into a ring whose memory is
 * mapped twice in a row, so that one which wraps round is still in one piece and is never moved.
 *
 * One connection at a time.  Left out: everything else; a peer that breaks the protocol loses its connection.
 *
 * Usage: limit_target FILE SIZE_BYTES.  It prints `ready url=raw://127.0.0.1:PORT` and serves until it is killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "limit_wire.h"

enum {
        RING_BYTES = 8 << 20,        /* more than one request, and than what a socket holds by default */
        BATCH_BYTES_MAX = 256 << 10, /* of data after which a batch leaves: still in the processor's cache, and the
                                        driver can look at it while the next is read */
        BATCH_ANSWERS_MAX = 512,     /* a header and data each: IOV_MAX is 1024 */
        ALIGNMENT = 64,              /* of data: a cache line */
};

static int disk;
static uint64_t size_bytes;
static int epoll;
static int connection;

static unsigned char *ring;
static size_t ring_start; /* of what is not handled yet: always below RING_BYTES */
static size_t ring_held;

static unsigned char *data; /* of reads, until it is sent */
static size_t data_held;
static struct limit_header answers[BATCH_ANSWERS_MAX];
static struct iovec batch[2 * BATCH_ANSWERS_MAX];
static int answer_count;
static int batch_count;

__attribute__((noreturn)) static void fail(const char *what)
{
        fprintf(stderr, "limit_target: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* Wait until the connection can do something that it could not before. */
static void wait_for_connection(void)
{
        struct epoll_event event;

        while (epoll_wait(epoll, &event, 1, -1) < 0)
                if (errno != EINTR)
                        fail("epoll_wait");
}

/* Whether something came: false when the connection has ended. */
static bool receive(void)
{
        if (ring_held == 0)
                ring_start = 0; /* what was used last is in the processor's cache */
        for (;;) {
                size_t end = (ring_start + ring_held) % RING_BYTES;
                ssize_t count = recv(connection, ring + end, RING_BYTES - ring_held, 0);
                if (count > 0) {
                        ring_held += (size_t)count;
                        return true;
                }
                if (count == 0 || (errno != EAGAIN && errno != EINTR))
                        return false;
                if (errno == EAGAIN)
                        wait_for_connection();
        }
}

/* Send all answers of the batch; false when the connection has ended. */
static bool send_batch(void)
{
        struct msghdr message = {.msg_iov = batch, .msg_iovlen = (size_t)batch_count};

        while (message.msg_iovlen > 0) {
                ssize_t sent = sendmsg(connection, &message, MSG_NOSIGNAL);
                if (sent < 0) {
                        if (errno != EAGAIN && errno != EINTR)
                                return false;
                        if (errno == EAGAIN)
                                wait_for_connection();
                        continue;
                }
                size_t left = (size_t)sent;
                while (message.msg_iovlen > 0 && left >= message.msg_iov->iov_len) {
                        left -= message.msg_iov->iov_len;
                        message.msg_iov++;
                        message.msg_iovlen--;
                }
                if (message.msg_iovlen > 0) {
                        message.msg_iov->iov_base = (unsigned char *)message.msg_iov->iov_base + left;
                        message.msg_iov->iov_len -= left;
                }
        }
        answer_count = batch_count = 0;
        data_held = 0;
        return true;
}

static uint32_t status_of(ssize_t done, uint64_t wanted)
{
        if (done < 0)
                return (uint32_t)errno;
        return (uint64_t)done == wanted ? 0 : EIO;
}

/* Do what `request` asks and add its answer to the batch; `payload` is what a write brought. */
static void handle(const struct limit_header *request, const unsigned char *payload)
{
        struct limit_header *answer = &answers[answer_count++];
        uint64_t length = request->length_bytes;
        unsigned char *into = data + data_held;

        *answer = *request;
        batch[batch_count++] = (struct iovec){answer, sizeof *answer};
        if (request->verb == LIMIT_SIZE)
                answer->length_bytes = size_bytes;
        else if (request->verb == LIMIT_FLUSH)
                answer->status = fdatasync(disk) == 0 ? 0 : (uint32_t)errno;
        else if (request->offset_bytes > size_bytes || length > size_bytes - request->offset_bytes)
                answer->status = EINVAL;
        else if (request->verb == LIMIT_WRITE)
                answer->status = status_of(pwrite(disk, payload, length, (off_t)request->offset_bytes), length);
        else
                answer->status = status_of(pread(disk, into, length, (off_t)request->offset_bytes), length);
        if (request->verb == LIMIT_READ && answer->status == 0) {
                batch[batch_count++] = (struct iovec){into, length};
                data_held += (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
}

/* Handle every request that is complete; false when the connection is to end. */
static bool handle_all(void)
{
        while (ring_held >= LIMIT_HEADER_BYTES) {
                struct limit_header request;
                memcpy(&request, ring + ring_start, sizeof request);
                if (request.magic != LIMIT_MAGIC || request.verb < LIMIT_READ || request.verb > LIMIT_SIZE ||
                    request.length_bytes > LIMIT_DATA_BYTES_MAX) {
                        fprintf(stderr, "limit_target: no request: verb %" PRIu32 ", %" PRIu64 " bytes\n", request.verb,
                                request.length_bytes);
                        return false;
                }
                size_t whole = LIMIT_HEADER_BYTES + (request.verb == LIMIT_WRITE ? request.length_bytes : 0);
                if (ring_held < whole)
                        break;
                handle(&request, ring + ring_start + LIMIT_HEADER_BYTES);
                ring_start = (ring_start + whole) % RING_BYTES;
                ring_held -= whole;
                if ((answer_count == BATCH_ANSWERS_MAX || data_held >= BATCH_BYTES_MAX) && !send_batch())
                        return false;
        }
        return send_batch();
}

static void serve(void)
{
        int on = 1;
        /* Edges of both kinds, told once: who waits has just been refused, so none is missed. */
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET};

        if (setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
                fail("TCP_NODELAY");
        /* As pyjiva's target does with a host on its own machine: BBR would pace what goes over loopback. */
        if (setsockopt(connection, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno")) != 0)
                fail("TCP_CONGESTION");
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection, &wanted) != 0)
                fail("epoll_ctl");
        ring_held = data_held = 0;
        answer_count = batch_count = 0;
        while (receive() && handle_all())
                ;
        close(connection);
}

static unsigned char *map_ring(void)
{
        int memory = memfd_create("ring", MFD_CLOEXEC);
        unsigned char *base = mmap(NULL, 2 * (size_t)RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (memory < 0 || ftruncate(memory, RING_BYTES) != 0 || base == MAP_FAILED)
                fail("memory for the ring");
        for (int half = 0; half < 2; half++)
                if (mmap(base + (size_t)half * RING_BYTES, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                         memory, 0) == MAP_FAILED)
                        fail("mapping the ring");
        close(memory);
        return base;
}

int main(int argc, char **argv)
{
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t address_bytes = sizeof address;
        char *end = NULL;

        if (argc == 3)
                size_bytes = strtoull(argv[2], &end, 10);
        if (argc != 3 || *end || size_bytes == 0 || size_bytes > INT64_MAX) {
                fputs("usage: limit_target FILE SIZE_BYTES\n", stderr);
                return 2;
        }
        disk = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (disk < 0 || ftruncate(disk, (off_t)size_bytes) != 0)
                fail(argv[1]);
        ring = map_ring();
        if (posix_memalign((void **)&data, 4096, BATCH_BYTES_MAX + LIMIT_DATA_BYTES_MAX) != 0)
                fail("memory for answers");
        epoll = epoll_create1(EPOLL_CLOEXEC);
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (epoll < 0 || listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
            listen(listener, 8) != 0 || getsockname(listener, (struct sockaddr *)&address, &address_bytes) != 0)
                fail("listening on loopback");
        printf("ready url=raw://127.0.0.1:%d\n", ntohs(address.sin_port));
        if (fflush(stdout) != 0)
                fail("standard output");
        for (;;) {
                connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (connection >= 0)
                        serve();
                else if (errno != EINTR && errno != ECONNABORTED)
                        fail("accept");
        }
}
