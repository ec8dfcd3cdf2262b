/* echo.h - a TCP server on the loopback address that sends back what it is sent; see echo.c. */
#ifndef ECHO_H
#define ECHO_H

#include "zbuf.h"

#include <stdint.h>

struct echo_server;

struct echo_stats {
    uint64_t naccepted, nclosed; /* connections, ever */
    uint64_t nrefused;           /* of the closed ones, those for which the pool had no buffer */
    uint64_t echoed_bytes;
    uint64_t nserving; /* threads inside echo_run that are ready for connections, now */
};

/* Listens on 127.0.0.1:port; 0 lets the system choose. NULL on failure, and zbuf_last_error says why. */
struct echo_server *echo_open(tri_heap *heap, struct bufpool *pool, uint16_t port);

/* The port that it listens on. */
uint16_t echo_port(const struct echo_server *server);

/* Serves until echo_stop. Several threads may run one server: each connection stays with the thread that accepted it.
 * Returns ZBUF_OK, or an error when it could not even begin. Every connection of the thread is closed on return. */
int echo_run(struct echo_server *server);

/* Makes every echo_run return, also those that begin later. Any thread, and from a signal handler. */
void echo_stop(struct echo_server *server);

/* Ends a server that no thread runs any more. */
void echo_close(struct echo_server *server);

void echo_stats_get(struct echo_server *server, struct echo_stats *out);

#endif
