/* pressure.h - what the system says about memory: pressure stall information, and the limits, events and pressure of
 * this process's control group (version 2). Each source is used when the system has it.
 *
 * One owner thread calls everything but tri__pressure_wake. No locks, no memory of its own. */
#ifndef TRI_BASE_PRESSURE_H
#define TRI_BASE_PRESSURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pressure_source {
    PRESSURE_SYSTEM = 1u << 0, /* /proc/pressure/memory */
    PRESSURE_GROUP = 1u << 1,  /* memory.pressure of the group */
    PRESSURE_EVENTS = 1u << 2, /* memory.events: "high" and "max" */
    PRESSURE_LIMIT = 1u << 3   /* memory.current against memory.high and memory.max, of the group and those above it */
};

enum { PRESSURE_PATH_BYTES = 512, PRESSURE_SOURCES = 3, PRESSURE_PREFIX_BYTES = 128 };

/* A file that counts, and the descriptor through which the system tells of its changes. */
struct pressure_file {
    char path[PRESSURE_PATH_BYTES]; /* empty: the system has no such file */
    int fd;                         /* polled; -1: it is read from time to time instead */
    uint64_t count;                 /* as last read */
    uint64_t read_ns;               /* when; 0: never */
};

struct pressure {
    struct pressure_file files[PRESSURE_SOURCES]; /* SYSTEM, GROUP, EVENTS */
    char group[PRESSURE_PATH_BYTES];              /* the group's folder; empty: none */
    size_t root_length;                           /* of the part of `group` that is the hierarchy's root */
    int wake_fd;      /* -1: nothing is polled, a futex does it [atomic]; see PRESSURE_INIT */
    bool limited;     /* a group has a limit, as last seen */
    uint32_t sources; /* that exist */
};

struct pressure_report {
    uint32_t pressing;  /* sources that say: memory is short */
    size_t limit_bytes; /* of the group nearest to its limit; SIZE_MAX: none has one */
    size_t used_bytes;  /* of that group, without the cached files that the system would drop first */
};

/* So that a wake before tri__pressure_init finds no descriptor. */
#define PRESSURE_INIT \
    { .wake_fd = -1 }

/* Finds the sources, and asks the system to tell of changes where it does that. */
void tri__pressure_init(struct pressure *pressure);
void tri__pressure_fini(struct pressure *pressure);

/* Reads what exists. Counts are compared with the call before; `fired` are the sources that the last wait told of.
 * Returns report->pressing. */
uint32_t tri__pressure_look(struct pressure *pressure, uint64_t now_ns, uint32_t fired, struct pressure_report *report);

/* True if a source has to be read from time to time, because the system does not tell of it. */
bool tri__pressure_needs_reading(const struct pressure *pressure);

/* Waits until *word is not zero, a source fires or timeout_ns pass (0: no timeout); may return early. The sources that
 * fired. */
uint32_t tri__pressure_wait(struct pressure *pressure, const uint32_t *word, uint64_t timeout_ns);
/* Ends a wait; *word was set before, sequentially consistent. Any thread. */
void tri__pressure_wake(struct pressure *pressure, const uint32_t *word);

/* How much of ncpus processors the quotas of this process's control groups grant (cpu.max; version 1:
 * cpu.cfs_quota_us), in thousandths of one, rounded up: at least 1. Any thread. */
unsigned tri__group_millicpus(unsigned ncpus);

/* For tests: files are looked for below `prefix` ("": the system's own). Not while a heap exists. */
void tri__pressure_set_root(const char *prefix);

#endif
