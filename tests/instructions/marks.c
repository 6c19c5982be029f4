/* Tells callgrind where counting begins and ends; does nothing where no valgrind runs. */
#include <valgrind/callgrind.h>

void start_counting(void) { CALLGRIND_START_INSTRUMENTATION; }

void count_from_here(void) { CALLGRIND_ZERO_STATS; }

void count_to_here(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
