/*
 * iscsi://: one session by libiscsi's asynchronous API.
 *
 * What libiscsi 1.19 settles by itself: it sets TCP_NODELAY; it offers MaxBurstLength, FirstBurstLength and
 * MaxRecvDataSegmentLength of 262144, ImmediateData=Yes, InitialR2T=No and MaxOutstandingR2T=1, and none of
 * that can be set from outside; it sends each PDU with a call of its own (a write's header and data with two)
 * and receives each with two.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport.h"

static struct iscsi_context *iscsi;
static int lun;
static uint32_t lun_block_bytes;

static void connect_lun(const char *text)
{
        char name[64];

        snprintf(name, sizeof name, "iqn.2016-09.com.openebs.jiva:bench-%ld", (long)getpid());
        iscsi = iscsi_create_context(name);
        if (iscsi == NULL)
                fail(EXIT_FAILED, "cannot make a libiscsi context");
        struct iscsi_url *url = iscsi_parse_full_url(iscsi, text);
        if (url == NULL)
                fail(EXIT_USAGE, "%s", iscsi_get_error(iscsi));
        lun = url->lun;
        iscsi_set_targetname(iscsi, url->target);
        iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
        iscsi_set_header_digest(iscsi, ISCSI_HEADER_DIGEST_NONE);
        iscsi_set_noautoreconnect(iscsi, 1); /* a lost connection is a failed run, not a slow one */
        iscsi_set_timeout(iscsi, STALL_S);
        if (iscsi_full_connect_sync(iscsi, url->portal, lun) != 0)
                fail(EXIT_FAILED, "%s: %s", text, iscsi_get_error(iscsi));
        iscsi_destroy_url(url);
}

static uint64_t read_capacity(uint32_t *block_bytes)
{
        struct scsi_task *task = iscsi_readcapacity16_sync(iscsi, lun);
        struct scsi_readcapacity16 *capacity;

        if (task == NULL || task->status != SCSI_STATUS_GOOD)
                fail(EXIT_FAILED, "READ CAPACITY(16): %s", iscsi_get_error(iscsi));
        capacity = scsi_datain_unmarshall(task);
        if (capacity == NULL || capacity->block_length < SECTOR_BYTES)
                fail(EXIT_FAILED, "READ CAPACITY(16): no usable answer");
        lun_block_bytes = *block_bytes = capacity->block_length;
        uint64_t size_bytes = (capacity->returned_lba + 1) * lun_block_bytes;
        scsi_free_scsi_task(task);
        return size_bytes;
}

static void task_answered(struct iscsi_context *context, int status, void *command_data, void *private_data)
{
        struct scsi_task *task = command_data;
        struct slot *slot = private_data;

        if (status != SCSI_STATUS_GOOD)
                fail(EXIT_FAILED, "%s at sector %" PRIu64 ": status 0x%x: %s", slot->verb == READ ? "read" : "write",
                     slot->first_sector, (unsigned)status, iscsi_get_error(context));
        if (task->residual_status != SCSI_RESIDUAL_NO_RESIDUAL)
                fail(EXIT_FAILED, "sector %" PRIu64 ": %zu bytes were not transferred", slot->first_sector,
                     task->residual);
        scsi_free_scsi_task(task);
        answered(slot);
}

static void submit(struct slot *slot)
{
        uint64_t lba = slot->first_sector * SECTOR_BYTES / lun_block_bytes;
        uint32_t length = (uint32_t)slot->iov.iov_len;
        struct scsi_task *task;

        if (slot->verb == READ)
                task = iscsi_read16_iov_task(iscsi, lun, lba, length, (int)lun_block_bytes, 0, 0, 0, 0, 0, task_answered,
                                             slot, &slot->iov, 1);
        else
                task = iscsi_write16_iov_task(iscsi, lun, lba, NULL, length, (int)lun_block_bytes, 0, 0, 0, 0, 0,
                                              task_answered, slot, &slot->iov, 1);
        if (task == NULL)
                fail(EXIT_FAILED, "cannot queue a command: %s", iscsi_get_error(iscsi));
}

static int socket_of_session(void)
{
        return iscsi_get_fd(iscsi);
}

static int wanted_events(void)
{
        return iscsi_which_events(iscsi);
}

static void set_cork(int on)
{
        if (setsockopt(iscsi_get_fd(iscsi), IPPROTO_TCP, TCP_CORK, &on, sizeof on) != 0)
                fail(EXIT_FAILED, "TCP_CORK: %s", strerror(errno));
}

static void service(int events)
{
        bool corked = cork && events == POLLOUT;

        if (corked)
                set_cork(1);
        if (iscsi_service(iscsi, events) != 0 || iscsi_get_fd(iscsi) < 0)
                fail(EXIT_FAILED, "the connection failed: %s", iscsi_get_error(iscsi));
        if (corked)
                set_cork(0);
}

static void synchronize_cache(void)
{
        struct scsi_task *task = iscsi_synchronizecache10_sync(iscsi, lun, 0, 0, 0, 0);

        if (task == NULL || task->status != SCSI_STATUS_GOOD)
                fail(EXIT_FAILED, "SYNCHRONIZE CACHE: %s", iscsi_get_error(iscsi));
        scsi_free_scsi_task(task);
}

static void log_out(void)
{
        iscsi_logout_sync(iscsi);
        iscsi_destroy_context(iscsi);
}

const struct transport libiscsi_transport = {
        .connect = connect_lun,
        .capacity = read_capacity,
        .submit = submit,
        .fd = socket_of_session,
        .wanted_events = wanted_events,
        .service = service,
        .flush = synchronize_cache,
        .disconnect = log_out,
};
