/* main.c - zbuf_echo: the echo server of echo.c as a program.
 *
 *     zbuf_echo [--port=N] [--threads=N] [--limit-mb=N]
 *
 * Prints the port that it listens on, serves until SIGINT or SIGTERM, then closes every connection, destroys the pool
 * (which fails if a single buffer has not come back) and prints what it did. Exit code 0 if all of it was in order. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "echo.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS_MOST = 64 };

struct options {
    unsigned long port, nthreads, limit_mb;
};

/* The number behind `--name=`; false when the argument is another one. */
static bool take_number(const char *argument, const char *name, unsigned long *out) {
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] == '\0') return false;
    char *end;
    *out = strtoul(argument + length, &end, 10);
    return *end == '\0';
}

static bool options_read(int argc, char **argv, struct options *o) {
    for (int i = 1; i < argc; i++) {
        if (!take_number(argv[i], "--port=", &o->port) && !take_number(argv[i], "--threads=", &o->nthreads) &&
            !take_number(argv[i], "--limit-mb=", &o->limit_mb))
            return false;
    }
    return o->port <= UINT16_MAX && o->nthreads >= 1 && o->nthreads <= THREADS_MOST && o->limit_mb <= 1ul << 20;
}

static void *serve(void *server) {
    int err = echo_run(server);
    if (err != ZBUF_OK) fprintf(stderr, "%s\n", zbuf_last_error());
    return NULL;
}

/* Serves on nthreads threads until one of the signals comes, which every thread has blocked. */
static void serve_until_signal(struct echo_server *server, unsigned long nthreads, const sigset_t *signals) {
    pthread_t threads[THREADS_MOST];
    unsigned long n = 0;
    while (n < nthreads && pthread_create(&threads[n], NULL, serve, server) == 0) n++;
    printf("listening on 127.0.0.1:%u, %lu threads\n", (unsigned)echo_port(server), n);
    fflush(stdout);
    int signal = 0;
    if (n > 0) sigwait(signals, &signal);
    echo_stop(server);
    for (unsigned long i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* Prints what was done, and whether everything came back. */
static bool finish(tri_heap *heap, struct bufpool *pool, struct echo_server *server) {
    struct echo_stats stats;
    struct bufpool_stats pool_stats;
    echo_stats_get(server, &stats);
    bufpool_stats_get(pool, &pool_stats);
    echo_close(server);
    int err = bufpool_destroy(pool);
    if (err != ZBUF_OK) fprintf(stderr, "%s\n", zbuf_last_error());
    printf("%" PRIu64 " connections, %" PRIu64 " closed, %" PRIu64 " refused, %" PRIu64 " bytes echoed\n",
           stats.naccepted, stats.nclosed, stats.nrefused, stats.echoed_bytes);
    printf("%zu bytes in buffers, %zu of them out, %zu manual bytes left\n", pool_stats.built_bytes,
           pool_stats.out_bytes, tri_manual_bytes(heap));
    return err == ZBUF_OK && stats.naccepted == stats.nclosed && tri_manual_bytes(heap) == 0;
}

int main(int argc, char **argv) {
    struct options o = {.nthreads = 1};
    if (!options_read(argc, argv, &o)) {
        fprintf(stderr, "usage: %s [--port=N] [--threads=1..%d] [--limit-mb=N]\n", argv[0], THREADS_MOST);
        return 64;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread exists: all inherit it */

    tri_heap *heap;
    if (tri_heap_create(NULL, &heap) != TRI_OK) {
        fprintf(stderr, "%s\n", tri_last_error());
        return 1;
    }
    struct bufpool_config config;
    bufpool_config_init(&config);
    if (o.limit_mb > 0) config.limit_bytes = (size_t)o.limit_mb << 20;
    struct bufpool *pool = NULL;
    struct echo_server *server = NULL;
    if (bufpool_create(heap, &config, &pool) == ZBUF_OK) server = echo_open(heap, pool, (uint16_t)o.port);
    bool ok = server != NULL;
    if (ok) {
        serve_until_signal(server, o.nthreads, &signals);
        ok = finish(heap, pool, server);
    } else {
        fprintf(stderr, "%s\n", zbuf_last_error());
        bufpool_destroy(pool);
    }
    tri_heap_destroy(heap);
    return ok ? 0 : 1;
}
