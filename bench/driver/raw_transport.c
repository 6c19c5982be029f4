/*
 * raw://ADDRESS:PORT: the protocol of limit_wire.h, with as few system calls as there can be.
 *
 * Everything that was submitted leaves with one sendmsg.  Answers come in the order of the requests, so what is
 * still to come is known byte by byte, and one recvmsg takes all that has come to where it belongs.
 *
 * raw+each://ADDRESS:PORT: the same, but each header and the data of each request and answer is sent and received
 * with a call of its own, which is what libiscsi does (libiscsi_transport.c).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "limit_wire.h"
#include "transport.h"

/* A request and the place of its answer. */
struct exchange {
        struct limit_header request;
        struct limit_header answer;
        struct slot *slot;
};

static int connection = -1;
static bool one_by_one; /* each header and each data has a call of its own */
/* Exchange number N stands at N modulo DEPTH_MAX.  Those from `done` to `sent` wait for their answers, those from
   `sent` to `queued` are still to leave. */
static struct exchange exchanges[DEPTH_MAX];
static uint64_t done, sent, queued;
static size_t done_bytes; /* of the answer of number `done` */
static size_t sent_bytes; /* of the request of number `sent` */

static struct exchange *exchange_of(uint64_t number)
{
        return &exchanges[number % DEPTH_MAX];
}

static void connect_raw(const char *text)
{
        const char *url = text;
        struct sockaddr_in address = {.sin_family = AF_INET};
        struct timeval stall = {.tv_sec = STALL_S};
        char host[16];
        unsigned port;
        int end = 0, on = 1;

        one_by_one = strncmp(url, "raw+each:", 9) == 0;
        url += one_by_one ? 9 : 4;
        if (sscanf(url, "//%15[0-9.]:%5u%n", host, &port, &end) != 2 || url[end] || port > UINT16_MAX ||
            inet_pton(AF_INET, host, &address.sin_addr) != 1)
                fail(EXIT_USAGE, "%s: raw://ADDRESS:PORT or raw+each://ADDRESS:PORT is needed", text);
        address.sin_port = htons((uint16_t)port);
        connection = socket(AF_INET, SOCK_STREAM, 0);
        if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0 ||
            setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
            setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &stall, sizeof stall) != 0)
                fail(EXIT_FAILED, "%s: %s", text, strerror(errno));
}

static void check_answer(const struct limit_header *request, const struct limit_header *answer)
{
        if (answer->magic != LIMIT_MAGIC || answer->verb != request->verb || answer->tag != request->tag)
                fail(EXIT_FAILED, "an answer to something else");
        if (answer->status)
                fail(EXIT_FAILED, "%s at sector %" PRIu64 ": %s", request->verb == LIMIT_READ ? "read" : "write",
                     request->offset_bytes / SECTOR_BYTES, strerror((int)answer->status));
}

/* Ask and wait, with nothing else in flight. */
static struct limit_header ask(enum limit_verb verb)
{
        struct limit_header request = {.magic = LIMIT_MAGIC, .verb = verb};
        struct limit_header answer;

        if (send(connection, &request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
            recv(connection, &answer, sizeof answer, MSG_WAITALL) != sizeof answer)
                fail(EXIT_FAILED, "the connection failed: %s", errno ? strerror(errno) : "it was closed");
        check_answer(&request, &answer);
        return answer;
}

static uint64_t ask_size(uint32_t *block_bytes)
{
        *block_bytes = SECTOR_BYTES;
        return ask(LIMIT_SIZE).length_bytes;
}

static void submit(struct slot *slot)
{
        struct exchange *exchange = exchange_of(queued);

        exchange->slot = slot;
        exchange->request = (struct limit_header){
                .magic = LIMIT_MAGIC,
                .verb = slot->verb == READ ? LIMIT_READ : LIMIT_WRITE,
                .tag = (uint32_t)queued,
                .offset_bytes = slot->first_sector * SECTOR_BYTES,
                .length_bytes = slot->iov.iov_len,
        };
        queued++;
}

/* The headers and data of a row of exchanges, without what has gone over the wire already. */
struct row {
        struct iovec iov[2 * DEPTH_MAX];
        size_t count;
        size_t skipped_bytes;
};

static void add(struct row *row, void *base, size_t length)
{
        if (row->skipped_bytes >= length) {
                row->skipped_bytes -= length;
                return;
        }
        row->iov[row->count++] =
                (struct iovec){(unsigned char *)base + row->skipped_bytes, length - row->skipped_bytes};
        row->skipped_bytes = 0;
}

/* Whether a call moved nothing, as it would have had to wait. */
static bool must_wait(ssize_t count)
{
        if (count > 0)
                return false;
        if (count < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        fail(EXIT_FAILED, "the connection failed: %s", count ? strerror(errno) : "it was closed");
}

/* False: it would have had to wait. */
static bool send_some(void)
{
        static struct row row;

        row.count = 0;
        row.skipped_bytes = sent_bytes;
        for (uint64_t number = sent; number < queued; number++) {
                struct exchange *exchange = exchange_of(number);
                add(&row, &exchange->request, LIMIT_HEADER_BYTES);
                if (exchange->slot->verb == WRITE)
                        add(&row, exchange->slot->buffer, exchange->slot->iov.iov_len);
        }
        struct msghdr message = {.msg_iov = row.iov, .msg_iovlen = one_by_one ? 1 : row.count};
        ssize_t count = sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (must_wait(count))
                return false;
        for (sent_bytes += (size_t)count; sent < queued; sent++) {
                struct slot *slot = exchange_of(sent)->slot;
                size_t whole = LIMIT_HEADER_BYTES + (slot->verb == WRITE ? slot->iov.iov_len : 0);
                if (sent_bytes < whole)
                        break;
                sent_bytes -= whole;
        }
        return true;
}

/* False: there was nothing. */
static bool receive_some(void)
{
        static struct row row;

        row.count = 0;
        row.skipped_bytes = done_bytes;
        for (uint64_t number = done; number < sent; number++) {
                struct exchange *exchange = exchange_of(number);
                add(&row, &exchange->answer, LIMIT_HEADER_BYTES);
                if (exchange->slot->verb == READ)
                        add(&row, exchange->slot->buffer, exchange->slot->iov.iov_len);
        }
        struct msghdr message = {.msg_iov = row.iov, .msg_iovlen = one_by_one ? 1 : row.count};
        ssize_t count = recvmsg(connection, &message, MSG_DONTWAIT);
        if (must_wait(count))
                return false;
        for (done_bytes += (size_t)count; done_bytes >= LIMIT_HEADER_BYTES;) {
                struct exchange *exchange = exchange_of(done);
                struct slot *slot = exchange->slot;
                size_t whole = LIMIT_HEADER_BYTES + (slot->verb == READ ? slot->iov.iov_len : 0);
                check_answer(&exchange->request, &exchange->answer);
                if (done_bytes < whole)
                        break;
                done_bytes -= whole;
                done++; /* first, as `answered` may submit */
                answered(slot);
        }
        return true;
}

static int connection_fd(void)
{
        return connection;
}

static int wanted_events(void)
{
        return POLLIN | (sent < queued ? POLLOUT : 0);
}

static void service(int events)
{
        if (events & POLLOUT)
                while (send_some() && one_by_one && sent < queued)
                        continue;
        if (events & (POLLIN | POLLERR | POLLHUP))
                while (receive_some() && one_by_one && done < sent)
                        continue;
}

static void ask_flush(void)
{
        ask(LIMIT_FLUSH);
}

static void disconnect(void)
{
        close(connection);
}

const struct transport raw_transport = {
        .connect = connect_raw,
        .capacity = ask_size,
        .submit = submit,
        .fd = connection_fd,
        .wanted_events = wanted_events,
        .service = service,
        .flush = ask_flush,
        .disconnect = disconnect,
};
