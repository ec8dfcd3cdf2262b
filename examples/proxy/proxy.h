/* proxy.h - a small proxy whose requests take a buffer each, of 10 KB to 3 MB and 100 KB on average, and the load for
 * it. See README.md.
 *
 *   main.c     options, phases, samples of the resident memory, the summary
 *   proxy.c    accepts, reads a request into a buffer, passes it upstream, and the reply back out of another buffer
 *   load.c     another process: the clients and the server behind the proxy
 *   buffers.c  where buffers come from: trigc's collector, manual memory released by a cleanup or by hand, malloc
 *   buffers_boehm.c  the same program over Boehm's collector (proxy_boehm)
 *
 * A message is its length, 4 bytes in network order, and so many bytes. */
#ifndef PROXY_H
#define PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LEAST_BYTES = 10 << 10, MOST_BYTES = 3 << 20, HEADER_BYTES = 4 };

/* ---- buffers ---------------------------------------------------------------------------------------------------- */

struct buffers; /* one thread's way to them */

/* Modes of this program, in order, NULL at the end; whether it has one of that name, which is used from then on. */
extern const char *const buffers_modes[];
bool buffers_open(const char *mode);
void buffers_close(void);
/* Gives back what an idle program does not need, where that does not happen by itself. */
void buffers_idle(void);
/* Bytes that the collector counts, and that lie beside it. */
void buffers_sizes(size_t *heap_bytes, size_t *beside_bytes, uint64_t *cycles);

/* A thread that uses buffers: NULL without memory. */
struct buffers *buffers_enter(void);
void buffers_leave(struct buffers *b);
/* Two buffers at most at a time, in places 0 and 1. NULL without memory. */
void *buffers_take(struct buffers *b, int place, size_t size_bytes);
/* The request is over: nothing refers to the buffer any more. */
void buffers_drop(struct buffers *b, int place);
/* Runs fn(arg), which may wait for long and uses the buffers' bytes alone. */
void buffers_wait(struct buffers *b, void *(*fn)(void *), void *arg);
/* Starts a thread that may use buffers. */
bool buffers_thread(void *(*fn)(void *), void *arg);

/* ---- the proxy -------------------------------------------------------------------------------------------------- */

struct proxy_counts {
    uint64_t nrequests, nbytes; /* passed on, [atomic] */
    uint32_t nconnections;      /* now [atomic] */
    uint32_t nfailed;           /* ended for another reason than their client's end [atomic] */
};
extern struct proxy_counts proxy_counts;

/* Listens on a free port of loopback; the descriptor. */
int proxy_listen(uint16_t *port);
/* Takes connections until the listening socket is shut down; each gets a thread and a connection upstream. */
void *proxy_accept(void *listen_fd_and_port);
struct proxy_listener {
    int fd;
    uint16_t upstream_port;
};

bool read_all(int fd, void *data, size_t size_bytes);
bool write_all(int fd, const void *data, size_t size_bytes);
int connect_to(uint16_t port);

/* ---- the load --------------------------------------------------------------------------------------------------- */

struct load {
    uint16_t proxy_port; /* read by the child from a pipe: the proxy listens after it was started */
    unsigned nconnections;
    unsigned load_ms, idle_ms;
    uint64_t seed;
};

/* Starts the process that makes the load, before this one has any thread: it answers on *upstream_port, and waits for
 * the proxy's port on *port_fd. The child's number, or -1. */
int load_start(const struct load *load, uint16_t *upstream_port, int *port_fd);

#endif
