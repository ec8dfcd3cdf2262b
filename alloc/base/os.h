/* os.h - all that trigc asks of the operating system. One implementation per system (os_linux.c).
 *
 * Every call that can fail says so by its value; none aborts, none prints. Addresses and sizes are multiples of the
 * system's page size unless the name says otherwise. */
#ifndef TRI_BASE_OS_H
#define TRI_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HUGE_PAGE_BYTES = 2 << 20 };

/* Address space without access (PROT_NONE), aligned to `align` (a power of two). NULL when the system refuses. */
void *tri__os_reserve(size_t size_bytes, size_t align);
/* Address space that reads as zero (PROT_READ) and takes no memory until it is committed. It begins with a huge page if
 * it is as large as one. NULL when refused. */
void *tri__os_reserve_readable(size_t size_bytes);
/* Asks for huge pages behind a range from now on, or for none. False when the system has no say in it. */
bool tri__os_advise_huge(void *addr, size_t size_bytes, bool huge);
/* Makes a part of a reservation readable and writable. False when the system refuses; nothing has changed then. */
bool tri__os_commit(void *addr, size_t size_bytes);
/* Gives the memory behind committed pages back; they read as zero afterwards. */
bool tri__os_decommit(void *addr, size_t size_bytes);
/* Puts memory behind committed pages, as a first write to each would, without changing what is there. False: the system
 * cannot, or has none. */
bool tri__os_populate(void *addr, size_t size_bytes);
/* Takes the address range itself back. */
void tri__os_release(void *addr, size_t size_bytes);
/* Fresh zeroed read-write memory for metadata. NULL when refused. */
void *tri__os_map(size_t size_bytes);
/* The same for a table of which little will be touched: no commit charge for the rest. */
void *tri__os_map_sparse(size_t size_bytes);

/* For tests (TRI_CHECKS >= 1; 0 and no effect otherwise): calls that the system may refuse, counted by kind since the
 * process began, and a plan to refuse some of them as the system would: the nth from now on, and the ncalls - 1 after
 * it (nth 0: none). Refused calls count, too. */
enum os_call { OS_CALL_MAP = 0, OS_CALL_PROTECT, OS_CALL_ADVISE, OS_CALL_THREAD, OS_CALL_KINDS };
uint64_t tri__os_ncalls(enum os_call kind);
void tri__os_fail_at(uint64_t nth, uint64_t ncalls);

size_t tri__os_page_size(void);
size_t tri__os_memory_bytes(void);        /* of the machine (or the container's limit, if lower) */
size_t tri__os_address_limit_bytes(void); /* RLIMIT_AS, SIZE_MAX for none */
unsigned tri__os_ncpus(void);
/* Bytes of the cache that a core has to itself (its second level), or a guess. */
size_t tri__os_cache_bytes(void); /* that this process may use */

uint64_t tri__os_now_ns(void);      /* monotonic */
uint64_t tri__os_recently_ns(void); /* the same as of the system's last tick: a few ms old, and much cheaper to read */
uint64_t tri__os_thread_cpu_ns(void); /* time that the calling thread has spent on a core */
uint64_t tri__os_thread_id(void);     /* as the system prints it */
void tri__os_yield(void);
void tri__os_sleep_ns(uint64_t ns);

/* Bounds of the calling thread's native stack: [low, high), it grows down from high. False when unknown. */
bool tri__os_stack_bounds(uintptr_t *low, uintptr_t *high);

/* Waits while *word == expected, until woken or timeout_ns passed (0: no timeout); may return early. */
void tri__os_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void tri__os_futex_wake_all(const uint32_t *word);

/* A joinable thread with a small stack and all signals blocked. False when the system refuses. The structure stays
 * where it is until the join. The new thread calls no malloc, which would take 64 MiB of addresses for an arena. */
struct os_thread {
    uintptr_t handle;
    void (*fn)(void *arg);
    void *arg;
    char name[16]; /* the system keeps 15 characters */
};
bool tri__os_thread_start(struct os_thread *thread, void (*fn)(void *), void *arg, const char *name);
void tri__os_thread_join(struct os_thread *thread);

#endif
