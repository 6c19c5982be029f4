/*
 * iscsi_load: put a steady load on one disk and say what it did, as JSON on standard output.
 *
 * One connection, one thread, one event loop.  How commands travel is a `transport`: libiscsi to an iSCSI LUN, or
 * raw_transport.c to limit_target; all else is the same for both.  The data cannot be compressed and
 * is a function of the seed and the block alone: 512 byte sector number N of the LUN begins with eight bytes
 * made from (seed, N) and goes on with the bytes of a pool of 1 MiB of random numbers at N modulo the pool.
 * So every write writes what is there already, every read can be compared, and a sector that is stale, torn,
 * misplaced or of another seed is found.
 *
 * Exit codes: 0 done; 1 the target, the connection or the system failed; 2 usage; 3 data that was read is wrong.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "transport.h"

enum {
        STAMP_BYTES = 8,
        POOL_BYTES = 1 << 20,
        POOL_SECTORS = POOL_BYTES / SECTOR_BYTES,
        BLOCK_BYTES_MAX = 4 << 20, /* what pyjiva takes in one command */
        WATCHED_MAX = 32,
        PREPARE_BLOCK_BYTES = 256 << 10, /* one burst and one data segment: no R2T */
        PREPARE_DEPTH = 8,
};

/* Latencies: buckets of 1/64 of a power of two, so a percentile is at most 1.6 % too high. */
enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS };

enum pattern { RANDOM, SEQUENTIAL, SHUFFLED };

struct cpu {
        double user_s;
        double system_s;
};

struct watched {
        long pid;
        struct cpu began;
        struct cpu ended;
        uint64_t rss_bytes;
};

/* One phase of the run: the same commands until the time or the count is reached. */
struct phase {
        enum verb verb;
        enum pattern pattern;
        uint32_t block_bytes;
        uint64_t stride_bytes; /* from the start of a block to that of the next */
        int depth;
        double rate;        /* commands per second, evenly spaced; 0: as many as are answered */
        uint64_t count;     /* commands to measure; 0: by time */
        uint64_t warmup_ns; /* what completes before is not counted */
        uint64_t measure_ns;
};

static struct {
        const char *url;
        const char *pattern;
        const char *verb;
        uint32_t block_bytes;
        uint64_t stride_bytes;
        int depth;
        double rate;
        double seconds;
        double warmup_s;
        uint64_t count;
        uint64_t seed;
        uint64_t range_bytes;
        bool fill;
        bool read_through;
} options = {.pattern = "random", .verb = "read", .block_bytes = 4096, .depth = 1, .seed = 1};

bool cork;
static const struct transport *transport;
static uint32_t lun_block_bytes;
static unsigned char pool[POOL_BYTES];
static struct slot slots[DEPTH_MAX];
static struct slot *idle_slots;
static struct watched watched[WATCHED_MAX];
static int watched_count;

/* State of the running phase. */
static struct phase phase;
static uint64_t random_state;
static uint64_t next_block;
static uint64_t phase_blocks;
static int in_flight;
static uint64_t issued;
static uint64_t phase_began_ns;
static uint64_t last_answer_ns;
static bool measuring;
static bool ended;

/* What was measured. */
static uint64_t measure_began_ns;
static uint64_t measure_ended_ns;
static uint64_t ops;
static uint64_t latency_max_ns;
static uint64_t gap_max_ns; /* the longest time without an answer */
static uint64_t histogram[BUCKETS];
static struct cpu own_began;
static struct cpu own_ended;
static uint64_t mismatches;
static uint64_t verified_sectors;

void fail(int code, const char *format, ...)
{
        va_list arguments;

        fputs("iscsi_load: ", stderr);
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
        exit(code);
}

static uint64_t now_ns(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* splitmix64 (Steele, Lea, Flood 2014): one step, and its mixing function alone. */
static uint64_t mix(uint64_t z)
{
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static uint64_t random_next(void)
{
        return mix(random_state += 0x9e3779b97f4a7c15u);
}

/* The place of `index` in an order of the numbers below `count` that follows from the seed: every one once.  Each
   step is a bijection of the numbers below a power of two; what is not below `count` is sent round again. */
static uint64_t shuffled(uint64_t index, uint64_t count)
{
        unsigned bits = 1;
        uint64_t at = index;

        while (bits < 63 && (1ull << bits) < count)
                bits++;
        uint64_t mask = (1ull << bits) - 1;
        do {
                for (int round = 0; round < 3; round++) {
                        at = (at + mix(options.seed + (uint64_t)round)) & mask;
                        at = (at * 0x9e3779b97f4a7c15u) & mask;
                        at ^= at >> ((bits + 1) / 2);
                }
        } while (at >= count);
        return at;
}

/* Content */

static void make_pool(uint64_t seed)
{
        uint64_t state = seed;

        for (size_t at = 0; at < POOL_BYTES; at += sizeof state) {
                uint64_t word = mix(state += 0x9e3779b97f4a7c15u);
                memcpy(pool + at, &word, sizeof word);
        }
}

static uint64_t stamp_of(uint64_t sector)
{
        return mix(sector ^ mix(options.seed + 1));
}

/* Make `slot`'s buffer hold what belongs at its sectors.  What lies behind the stamps repeats with the pool, so
   a buffer that held the same phase before needs its stamps only. */
static void make_content(struct slot *slot)
{
        uint32_t sectors = phase.block_bytes / SECTOR_BYTES;
        int64_t pool_phase = (int64_t)(slot->first_sector % POOL_SECTORS);

        if (slot->pool_phase != pool_phase) {
                uint32_t done = 0;
                uint32_t at = (uint32_t)pool_phase * SECTOR_BYTES;
                while (done < phase.block_bytes) {
                        uint32_t length = POOL_BYTES - at;
                        if (length > phase.block_bytes - done)
                                length = phase.block_bytes - done;
                        memcpy(slot->buffer + done, pool + at, length);
                        done += length;
                        at = 0;
                }
                slot->pool_phase = pool_phase;
        }
        for (uint32_t i = 0; i < sectors; i++) {
                uint64_t stamp = stamp_of(slot->first_sector + i);
                memcpy(slot->buffer + (size_t)i * SECTOR_BYTES, &stamp, STAMP_BYTES);
        }
}

static void verify_content(const struct slot *slot)
{
        uint32_t sectors = phase.block_bytes / SECTOR_BYTES;

        for (uint32_t i = 0; i < sectors; i++) {
                uint64_t sector = slot->first_sector + i;
                const unsigned char *got = slot->buffer + (size_t)i * SECTOR_BYTES;
                const unsigned char *body = pool + (sector % POOL_SECTORS) * SECTOR_BYTES;
                uint64_t stamp = stamp_of(sector);
                bool stamp_wrong = memcmp(got, &stamp, STAMP_BYTES) != 0;

                if (!stamp_wrong && memcmp(got + STAMP_BYTES, body + STAMP_BYTES, SECTOR_BYTES - STAMP_BYTES) == 0)
                        continue;
                if (mismatches++ == 0)
                        fprintf(stderr, "iscsi_load: sector %" PRIu64 " does not hold what was written: wrong %s\n",
                                sector, stamp_wrong ? "stamp" : "content");
        }
        verified_sectors += sectors;
}

/* What the processes cost */

static struct cpu own_cpu(void)
{
        struct rusage usage;

        getrusage(RUSAGE_SELF, &usage);
        return (struct cpu){
                (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
                (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6,
        };
}

/* proc_pid_stat(5): utime, stime and rss are fields 14, 15 and 24; the second, a name, may hold anything. */
static struct cpu cpu_of(struct watched *process)
{
        char path[64], text[2048];
        unsigned long long user = 0, system = 0;
        long rss_pages = 0;
        double ticks = (double)sysconf(_SC_CLK_TCK);

        snprintf(path, sizeof path, "/proc/%ld/stat", process->pid);
        FILE *file = fopen(path, "r");
        if (file == NULL)
                fail(EXIT_FAILED, "process %ld, which was to be watched: %s", process->pid, strerror(errno));
        size_t length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[length] = '\0';
        char *rest = strrchr(text, ')');
        if (rest == NULL || sscanf(rest + 2,
                                   "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d "
                                   "%*u %*u %ld",
                                   &user, &system, &rss_pages) != 3)
                fail(EXIT_FAILED, "%s: not as expected", path);
        process->rss_bytes = (uint64_t)rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
        return (struct cpu){(double)user / ticks, (double)system / ticks};
}

/* Measuring */

static unsigned bucket_of(uint64_t ns)
{
        if (ns < SUB_BUCKETS)
                return (unsigned)ns;
        unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
        return ((shift + 1) << SUB_BITS) + (unsigned)((ns >> shift) - SUB_BUCKETS);
}

/* The largest latency that falls into `bucket`. */
static uint64_t bucket_top_ns(unsigned bucket)
{
        if (bucket < SUB_BUCKETS)
                return bucket;
        unsigned shift = (bucket >> SUB_BITS) - 1;
        return (((uint64_t)(bucket & (SUB_BUCKETS - 1)) + SUB_BUCKETS + 1) << shift) - 1;
}

static double percentile_us(double share)
{
        uint64_t wanted = (uint64_t)(share * (double)ops), seen = 0;

        for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
                seen += histogram[bucket];
                if (seen > wanted || seen == ops) {
                        uint64_t top = bucket_top_ns(bucket);
                        return (double)(top < latency_max_ns ? top : latency_max_ns) / 1e3;
                }
        }
        return 0;
}

static void begin_measuring(uint64_t now)
{
        measuring = true;
        measure_began_ns = now;
        ops = latency_max_ns = gap_max_ns = 0;
        memset(histogram, 0, sizeof histogram);
        for (int i = 0; i < watched_count; i++)
                watched[i].began = cpu_of(&watched[i]);
        own_began = own_cpu();
}

static void end_measuring(uint64_t now)
{
        ended = true;
        measure_ended_ns = now;
        own_ended = own_cpu();
        for (int i = 0; i < watched_count; i++)
                watched[i].ended = cpu_of(&watched[i]);
}

/* The load */

static void submit_all(void);

void answered(struct slot *slot)
{
        uint64_t now = now_ns();

        in_flight--;
        uint64_t waited_since_ns = last_answer_ns > measure_began_ns ? last_answer_ns : measure_began_ns;
        last_answer_ns = now;
        if (measuring && !ended) {
                uint64_t latency = now - slot->began_ns;
                ops++;
                histogram[bucket_of(latency)]++;
                if (latency > latency_max_ns)
                        latency_max_ns = latency;
                if (now - waited_since_ns > gap_max_ns)
                        gap_max_ns = now - waited_since_ns;
        }
        if (phase.verb == READ) {
                verify_content(slot);
                slot->pool_phase = -1;
        }
        slot->next_idle = idle_slots;
        idle_slots = slot;
        if (!measuring && now - phase_began_ns >= phase.warmup_ns)
                begin_measuring(now);
        else if (measuring && !ended &&
                 (phase.count ? ops == phase.count : now - measure_began_ns >= phase.measure_ns))
                end_measuring(now);
        submit_all();
}

/* When the next command is to be sent.  One that is sent later, as none of the slots was idle or this program was
   not woken in time, has waited since then: so a target that stands still is charged with all that it holds up. */
static uint64_t due_ns(void)
{
        return phase_began_ns + (uint64_t)((double)issued / phase.rate * 1e9);
}

static uint64_t choose_block(void)
{
        if (phase.pattern == RANDOM)
                return random_next() % phase_blocks;
        uint64_t index = next_block++ % phase_blocks;
        return phase.pattern == SHUFFLED ? shuffled(index, phase_blocks) : index;
}

static void submit_one(struct slot *slot)
{
        uint64_t offset = choose_block() * phase.stride_bytes;

        slot->first_sector = offset / SECTOR_BYTES;
        slot->verb = phase.verb;
        slot->iov = (struct scsi_iovec){slot->buffer, phase.block_bytes};
        if (phase.verb == WRITE)
                make_content(slot);
        slot->began_ns = phase.rate > 0 ? due_ns() : now_ns();
        transport->submit(slot);
        in_flight++;
        issued++;
}

static void submit_all(void)
{
        while (!ended && idle_slots != NULL) {
                /* A count is of measured commands: those of the warm-up come on top. */
                if (phase.count && measuring && ops + (uint64_t)in_flight >= phase.count)
                        return;
                if (phase.rate > 0 && due_ns() > now_ns())
                        return;
                struct slot *slot = idle_slots;
                idle_slots = slot->next_idle;
                submit_one(slot);
        }
}

/* How long to wait for an answer: not beyond the moment at which a command is to be sent. */
static struct timespec wait_time(void)
{
        uint64_t wait_ns = 1000000000u;

        if (phase.rate > 0 && !ended && idle_slots != NULL) {
                uint64_t due = due_ns(), now = now_ns();
                uint64_t left_ns = due > now ? due - now : 0;
                if (left_ns < wait_ns)
                        wait_ns = left_ns;
        }
        return (struct timespec){(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
}

/* Run `wanted` until it has ended and every command is answered. */
static void run_phase(struct phase wanted)
{
        phase = wanted;
        /* The last block needs no more room than it has bytes. */
        phase_blocks = (options.range_bytes - phase.block_bytes) / phase.stride_bytes + 1;
        random_state = mix(options.seed ^ 0x6c6f6164); /* not the sequence that made the pool */
        next_block = 0;
        in_flight = 0;
        issued = 0;
        measuring = ended = false;
        idle_slots = NULL;
        for (int i = phase.depth - 1; i >= 0; i--) {
                slots[i].pool_phase = -1;
                slots[i].next_idle = idle_slots;
                idle_slots = &slots[i];
        }
        phase_began_ns = last_answer_ns = now_ns();
        if (phase.warmup_ns == 0)
                begin_measuring(phase_began_ns);
        submit_all();
        while (in_flight > 0 || (phase.rate > 0 && !ended)) {
                /* Send at once, without asking poll whether it would work: it nearly always does. */
                if (transport->wanted_events() & POLLOUT)
                        transport->service(POLLOUT);
                struct pollfd poll_fd = {transport->fd(), (short)transport->wanted_events(), 0};
                if (poll_fd.events == 0)
                        fail(EXIT_FAILED, "the connection was lost");
                struct timespec wait = wait_time();
                int ready = ppoll(&poll_fd, 1, &wait, NULL);
                if (ready < 0 && errno != EINTR)
                        fail(EXIT_FAILED, "ppoll: %s", strerror(errno));
                if (ready > 0)
                        transport->service(poll_fd.revents);
                else if (in_flight > 0 && now_ns() - last_answer_ns > STALL_S * 1000000000ull)
                        fail(EXIT_FAILED, "no answer for %d s with %d commands outstanding", STALL_S, in_flight);
                if (phase.rate > 0)
                        submit_all();
        }
}

static struct phase prepare_phase(enum verb verb)
{
        uint32_t block_bytes = PREPARE_BLOCK_BYTES;

        while (options.range_bytes % block_bytes)
                block_bytes /= 2; /* the range is a whole number of logical blocks */
        return (struct phase){
                .verb = verb,
                .pattern = SEQUENTIAL,
                .block_bytes = block_bytes,
                .stride_bytes = block_bytes,
                .depth = PREPARE_DEPTH,
                .count = options.range_bytes / block_bytes,
        };
}

static void check_capacity(void)
{
        uint64_t size_bytes = transport->capacity(&lun_block_bytes);

        if (options.range_bytes == 0)
                options.range_bytes = size_bytes - size_bytes % options.block_bytes;
        if (options.range_bytes > size_bytes)
                fail(EXIT_USAGE, "--range: the LUN has %" PRIu64 " bytes only", size_bytes);
        if (options.block_bytes % lun_block_bytes || options.stride_bytes % lun_block_bytes || options.range_bytes % lun_block_bytes)
                fail(EXIT_USAGE, "--block, --stride and --range: the LUN's blocks have %u bytes", lun_block_bytes);
        if (options.range_bytes < options.block_bytes)
                fail(EXIT_USAGE, "--range: smaller than --block");
}

/* Command line and report */

static void usage(void)
{
        fputs("usage: iscsi_load iscsi://... | raw://ADDRESS:PORT | raw+each://ADDRESS:PORT\n"
              "                  [--pattern random|sequential|shuffled] [--verb read|write]\n"
              "                  [--block BYTES] [--stride BYTES] [--depth N] (--seconds S | --count N) [--warmup S]\n"
              "                  [--rate N]\n"
              "                  [--seed N] [--range BYTES] [--fill] [--read-through] [--cork] [--watch PID]...\n"
              "\n"
              "  --pattern shuffled  every block once, in an order that the seed decides, before any comes again\n"
              "  --stride BYTES  from the start of a block to that of the next; as --block if it is not given\n"
              "  --rate N        so many commands a second, evenly spaced, at most --depth outstanding; a command's\n"
              "                  time counts from when it was to be sent\n"
              "  --fill          first write the whole range and flush it (a read needs this once per seed)\n"
              "  --read-through  first read the whole range, so that the target has it in its cache\n"
              "  --cork          send what is queued in one packet: less work for this program, larger batches;\n"
              "                  raw:// always does\n"
              "  --watch PID     also report the processor time of this process while it was measured\n"
              "  --seconds 0     only fill or read through\n",
              stderr);
        exit(EXIT_USAGE);
}

static uint64_t number(const char *name, const char *text, uint64_t least, uint64_t most)
{
        char *end;

        errno = 0;
        unsigned long long value = strtoull(text, &end, 10);
        if (errno || *end || end == text || *text == '-' || value < least || value > most)
                fail(EXIT_USAGE, "--%s %s: a number from %" PRIu64 " to %" PRIu64 " is needed", name, text, least, most);
        return value;
}

static double seconds(const char *name, const char *text)
{
        char *end;
        double value = strtod(text, &end);

        if (*end || end == text || !(value >= 0 && value <= 1e6))
                fail(EXIT_USAGE, "--%s %s: seconds are needed", name, text);
        return value;
}

static const char *one_of(const char *name, const char *text, const char *first, const char *second)
{
        if (strcmp(text, first) && strcmp(text, second))
                fail(EXIT_USAGE, "--%s %s: %s or %s is needed", name, text, first, second);
        return text;
}

static enum pattern pattern_of(const char *text)
{
        if (strcmp(text, "shuffled") == 0)
                return SHUFFLED;
        return strcmp(text, "random") == 0 ? RANDOM : SEQUENTIAL;
}

static void parse_options(int argc, char **argv)
{
        static const struct option known[] = {
                {"pattern", required_argument, NULL, 'p'},  {"verb", required_argument, NULL, 'v'},
                {"block", required_argument, NULL, 'b'},    {"depth", required_argument, NULL, 'd'},
                {"seconds", required_argument, NULL, 's'},  {"count", required_argument, NULL, 'n'},
                {"warmup", required_argument, NULL, 'w'},   {"seed", required_argument, NULL, 'S'},
                {"range", required_argument, NULL, 'r'},    {"fill", no_argument, NULL, 'f'},
                {"read-through", no_argument, NULL, 't'},   {"cork", no_argument, NULL, 'c'},
                {"watch", required_argument, NULL, 'W'},    {"stride", required_argument, NULL, 'T'},
                {"rate", required_argument, NULL, 'R'},
                {NULL, 0, NULL, 0},
        };
        bool timed = false;
        int option, index = 0;

        while ((option = getopt_long(argc, argv, "", known, &index)) != -1) {
                const char *name = option == '?' ? "" : known[index].name;
                switch (option) {
                case 'p': 
                        options.pattern = strcmp(optarg, "shuffled") ? one_of(name, optarg, "random", "sequential")
                                                                     : optarg;
                        break;
                case 'v': options.verb = one_of(name, optarg, "read", "write"); break;
                case 'b': options.block_bytes = (uint32_t)number(name, optarg, SECTOR_BYTES, BLOCK_BYTES_MAX); break;
                case 'T': options.stride_bytes = number(name, optarg, SECTOR_BYTES, INT64_MAX); break;
                case 'd': options.depth = (int)number(name, optarg, 1, DEPTH_MAX); break;
                case 'R': options.rate = (double)number(name, optarg, 1, 10000000); break;
                case 's': options.seconds = seconds(name, optarg); timed = true; break;
                case 'n': options.count = number(name, optarg, 1, UINT64_MAX - 1); break;
                case 'w': options.warmup_s = seconds(name, optarg); break;
                case 'S': options.seed = number(name, optarg, 0, UINT64_MAX - 1); break;
                case 'r': options.range_bytes = number(name, optarg, SECTOR_BYTES, INT64_MAX); break;
                case 'f': options.fill = true; break;
                case 't': options.read_through = true; break;
                case 'c': cork = true; break;
                case 'W':
                        if (watched_count == WATCHED_MAX)
                                fail(EXIT_USAGE, "--watch: at most %d", WATCHED_MAX);
                        watched[watched_count++].pid = (long)number(name, optarg, 1, INT32_MAX);
                        break;
                default: usage();
                }
        }
        if (argc - optind != 1 || timed == (options.count > 0))
                usage();
        if (options.block_bytes % SECTOR_BYTES)
                fail(EXIT_USAGE, "--block: not a multiple of %d", SECTOR_BYTES);
        if (options.stride_bytes == 0)
                options.stride_bytes = options.block_bytes;
        if (options.stride_bytes % SECTOR_BYTES || options.stride_bytes < options.block_bytes)
                fail(EXIT_USAGE, "--stride: not a multiple of %d, or less than --block", SECTOR_BYTES);
        options.url = argv[optind];
}

static void report(void)
{
        double elapsed_s = (double)(measure_ended_ns - measure_began_ns) / 1e9;
        double bytes = (double)ops * options.block_bytes;
        bool any = ops > 0 && elapsed_s > 0;

        printf("{\"ops\": %" PRIu64 ", \"bytes\": %.0f, \"seconds\": %.6f, \"iops\": %.2f, \"mb_s\": %.3f,\n", ops, bytes,
               elapsed_s, any ? (double)ops / elapsed_s : 0, any ? bytes / elapsed_s / 1e6 : 0);
        printf(" \"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f},\n",
               percentile_us(0.5), percentile_us(0.9), percentile_us(0.99), percentile_us(0.999),
               (double)latency_max_ns / 1e3);
        printf(" \"gap_max_us\": %.1f,\n", (double)gap_max_ns / 1e3);
        printf(" \"driver\": {\"user_s\": %.6f, \"system_s\": %.6f},\n", own_ended.user_s - own_began.user_s,
               own_ended.system_s - own_began.system_s);
        printf(" \"watched\": {");
        for (int i = 0; i < watched_count; i++)
                printf("%s\"%ld\": {\"user_s\": %.6f, \"system_s\": %.6f, \"rss_bytes\": %" PRIu64 "}", i ? ", " : "",
                       watched[i].pid, watched[i].ended.user_s - watched[i].began.user_s,
                       watched[i].ended.system_s - watched[i].began.system_s, watched[i].rss_bytes);
        printf("},\n \"mismatches\": %" PRIu64 ", \"verified_bytes\": %" PRIu64 ",\n", mismatches,
               verified_sectors * SECTOR_BYTES);
        printf(" \"config\": {\"pattern\": \"%s\", \"verb\": \"%s\", \"block_bytes\": %u, \"depth\": %d, "
               "\"seed\": %" PRIu64 ", \"range_bytes\": %" PRIu64 ", \"lun_block_bytes\": %u, \"cork\": %s}}\n",
               options.pattern, options.verb, options.block_bytes, options.depth, options.seed, options.range_bytes,
               lun_block_bytes, cork ? "true" : "false");
        if (fflush(stdout) != 0)
                fail(EXIT_FAILED, "standard output: %s", strerror(errno));
}

int main(int argc, char **argv)
{
        parse_options(argc, argv);
        if (options.rate > 0)
                (void)prctl(PR_SET_TIMERSLACK, 1ul); /* else each command may be late by 50 us */
        make_pool(options.seed);
        bool raw = strncmp(options.url, "raw://", 6) == 0 || strncmp(options.url, "raw+each://", 11) == 0;
        transport = raw ? &raw_transport : &libiscsi_transport;
        transport->connect(options.url);
        check_capacity();
        int depth = options.depth > PREPARE_DEPTH ? options.depth : PREPARE_DEPTH;
        size_t buffer_bytes = options.block_bytes > PREPARE_BLOCK_BYTES ? options.block_bytes : PREPARE_BLOCK_BYTES;
        for (int i = 0; i < depth; i++)
                if (posix_memalign((void **)&slots[i].buffer, 4096, buffer_bytes) != 0)
                        fail(EXIT_FAILED, "no memory for %d buffers", depth);
        if (options.fill) {
                run_phase(prepare_phase(WRITE));
                transport->flush();
        }
        if (options.read_through)
                run_phase(prepare_phase(READ));
        ops = latency_max_ns = gap_max_ns = measure_began_ns = measure_ended_ns = 0;
        own_began = own_ended = own_cpu();
        for (int i = 0; i < watched_count; i++)
                watched[i].began = watched[i].ended = cpu_of(&watched[i]);
        if (options.count || options.seconds > 0)
                run_phase((struct phase){
                        .verb = strcmp(options.verb, "read") ? WRITE : READ,
                        .pattern = pattern_of(options.pattern),
                        .block_bytes = options.block_bytes,
                        .stride_bytes = options.stride_bytes,
                        .depth = options.depth,
                        .rate = options.rate,
                        .count = options.count,
                        .warmup_ns = (uint64_t)(options.warmup_s * 1e9),
                        .measure_ns = (uint64_t)(options.seconds * 1e9),
                });
        transport->disconnect();
        report();
        return mismatches ? EXIT_MISMATCH : 0;
}
