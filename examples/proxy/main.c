/* main.c - the proxy as a program that measures itself:
 *
 *     proxy [--buffers=NAME] [--connections=N] [--load-ms=N] [--idle-ms=N] [--csv=FILE]
 *
 * Load for a while, then none. Ten times a second a line goes to the CSV file: milliseconds, phase, resident memory,
 * the collector's bytes and those beside it, cycles, requests. At the end a line on standard output says what was
 * resident at most, at the load's end, and at the end. Exit code 0 if every request was answered as it should be. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"

enum { SAMPLE_MS = 100, CONNECTIONS_MOST = 512 };

struct options {
    const char *buffers, *csv;
    unsigned long nconnections, load_ms, idle_ms;
};

static bool take_number(const char *argument, const char *name, unsigned long *out) {
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] == '\0') return false;
    char *end;
    *out = strtoul(argument + length, &end, 10);
    return *end == '\0' && *out < 1000000;
}

static bool take_text(const char *argument, const char *name, const char **out) {
    size_t length = strlen(name);
    if (strncmp(argument, name, length) != 0 || argument[length] == '\0') return false;
    *out = argument + length;
    return true;
}

static bool options_read(int argc, char **argv, struct options *o) {
    for (int i = 1; i < argc; i++)
        if (!take_text(argv[i], "--buffers=", &o->buffers) && !take_text(argv[i], "--csv=", &o->csv) &&
            !take_number(argv[i], "--connections=", &o->nconnections) &&
            !take_number(argv[i], "--load-ms=", &o->load_ms) && !take_number(argv[i], "--idle-ms=", &o->idle_ms))
            return false;
    return o->nconnections >= 1 && o->nconnections <= CONNECTIONS_MOST;
}

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static size_t resident_bytes(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%*u %lu", &pages) != 1) pages = 0;
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

struct sampling {
    FILE *csv;
    uint64_t start_ms;
    size_t most_bytes, last_bytes;
};

static void sample(struct sampling *s, const char *phase) {
    size_t heap_bytes, beside_bytes;
    uint64_t cycles;
    s->last_bytes = resident_bytes();
    if (s->last_bytes > s->most_bytes) s->most_bytes = s->last_bytes;
    buffers_sizes(&heap_bytes, &beside_bytes, &cycles);
    if (s->csv)
        fprintf(s->csv, "%" PRIu64 ",%s,%zu,%zu,%zu,%" PRIu64 ",%" PRIu64 "\n", now_ms() - s->start_ms, phase,
                s->last_bytes, heap_bytes, beside_bytes, cycles,
                __atomic_load_n(&proxy_counts.nrequests, __ATOMIC_RELAXED)); /* a counter */
}

static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Samples until the load's process has ended, and then for the idle time. True if the load found all as it should
 * be. */
static bool watch(struct sampling *s, int child, const struct options *o, size_t *loaded_bytes, uint64_t *loaded_ms) {
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        sample(s, "load");
        sleep_ms(SAMPLE_MS);
    }
    *loaded_bytes = s->last_bytes;
    *loaded_ms = now_ms() - s->start_ms;
    for (uint64_t end_ms = now_ms() + o->idle_ms; now_ms() < end_ms; sleep_ms(SAMPLE_MS)) {
        buffers_idle();
        sample(s, "idle");
    }
    while (__atomic_load_n(&proxy_counts.nconnections, __ATOMIC_ACQUIRE)) sleep_ms(1); /* pairs with their end */
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool run(const struct options *o, int child, int port_fd, uint16_t upstream_port, struct sampling *s) {
    struct proxy_listener listener = {.upstream_port = upstream_port};
    uint16_t port;
    size_t loaded_bytes;
    uint64_t loaded_ms;
    listener.fd = proxy_listen(&port);
    if (listener.fd < 0 || !buffers_thread(proxy_accept, &listener) || !write_all(port_fd, &port, sizeof port))
        return false;
    bool ok = watch(s, child, o, &loaded_bytes, &loaded_ms);
    shutdown(listener.fd, SHUT_RDWR);
    uint64_t n = proxy_counts.nrequests;
    printf("%-10s %8" PRIu64
           " requests, %7.0f a second, %6.0f MB/s; resident: %4zu MB at most, %4zu MB after the load, "
           "%4zu MB at the end\n",
           o->buffers, n, (double)n * 1000 / (double)loaded_ms, (double)proxy_counts.nbytes / 1e3 / (double)loaded_ms,
           s->most_bytes >> 20, loaded_bytes >> 20, s->last_bytes >> 20);
    return ok && n > 0 && proxy_counts.nfailed == 0;
}

int main(int argc, char **argv) {
    struct options o = {.buffers = buffers_modes[0], .nconnections = 64, .load_ms = 10000, .idle_ms = 10000};
    if (!options_read(argc, argv, &o)) {
        fprintf(stderr, "usage: %s [--buffers=", argv[0]);
        for (int i = 0; buffers_modes[i]; i++) fprintf(stderr, "%s%s", i ? "|" : "", buffers_modes[i]);
        fprintf(stderr, "] [--connections=N] [--load-ms=N] [--idle-ms=N] [--csv=FILE]\n");
        return 2;
    }
    struct load load = {.nconnections = (unsigned)o.nconnections,
                        .load_ms = (unsigned)o.load_ms,
                        .idle_ms = (unsigned)o.idle_ms,
                        .seed = 0x9e3779b97f4a7c15u};
    uint16_t upstream_port;
    int port_fd, child = load_start(&load, &upstream_port, &port_fd); /* before there are threads and a heap */
    struct sampling s = {.csv = o.csv ? fopen(o.csv, "w") : NULL, .start_ms = now_ms()};
    if (child < 0 || (o.csv && !s.csv) || !buffers_open(o.buffers)) {
        fprintf(stderr, "%s: no sockets, no file %s, or no buffers \"%s\"\n", argv[0], o.csv ? o.csv : "", o.buffers);
        return 1;
    }
    if (s.csv) fprintf(s.csv, "ms,phase,resident_bytes,heap_bytes,beside_bytes,cycles,requests\n");
    bool ok = run(&o, child, port_fd, upstream_port, &s);
    if (s.csv && fclose(s.csv) != 0) ok = false;
    buffers_close();
    return ok ? 0 : 1;
}
