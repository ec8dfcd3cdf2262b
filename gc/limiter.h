/* limiter.h - what bounds the collector's share of the processors' time, by giving the heap more room: arithmetic only.
 *
 * Two bounds, told of the same cycles:
 *
 *   soft limit  near it cycles would follow each other without end. A leaky bucket fills with collecting time, naps of
 *               threads that are held back included, and drains with the rest, half and half (or as the cap says, if
 *               that is less); when it is full, the room up to the soft limit is doubled with each cycle, and halved
 *               again once it is half empty: the soft limit is exceeded instead.
 *   cap         cpu_percent: what the collector's threads and assists may take of all processors. What
 *               marking takes in a cycle does not depend on the room, so its share is about inverse to it: the room is
 *               multiplied by `widened`, which goes half of the way that the last period asks for. It is 1 while the
 *               share is within the cap. Sweeping follows what is allocated, whatever the room: it counts, but no room
 *               is given for it; where it alone takes most of the cap, marking is left a quarter.
 *
 * Invariants: I-PACE3 the limiter's fill is at most its capacity. I-PACE4 the room is widened by 1 to LIMITER_MOST. */
#ifndef TRI_GC_LIMITER_H
#define TRI_GC_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LIMITER_MOST = 1024 };

/* What collecting has taken so far, ever, and of what. */
struct limiter_times {
    uint64_t now_ns;
    uint64_t busy_ns;     /* marking, passes over weak maps and death, assists */
    uint64_t swept_ns;    /* sweeping */
    uint64_t stalled_ns;  /* allocating threads that were held back */
    uint32_t millicpus;   /* thousandths of cores that there are */
    uint32_t could_use;   /* of them: one core for each thread of the program, and one for the collector */
    uint32_t cpu_percent; /* of all that there are; 100: no cap */
};

struct limiter {
    uint64_t fill_ns, capacity_ns;                  /* one second of each processor that the program could use */
    uint64_t now_ns, busy_ns, swept_ns, stalled_ns; /* what it was told last */
    uint32_t doubled;                               /* how often the room up to the soft limit is doubled now */
    double widened;                                 /* by how much the cap multiplies the room, 1 and more */
    double share; /* of all processors' time, between the last two tellings: threads of the heap's and assists */
};

void tri__limiter_init(struct limiter *limiter);
void tri__limiter_tell(struct limiter *limiter, const struct limiter_times *times);
/* The room between what is held and the soft limit, doubled as often as the bucket says; SIZE_MAX where that is
 * more. */
size_t tri__limiter_room(const struct limiter *limiter, size_t room_bytes);

#endif
