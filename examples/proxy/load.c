/* load.c - the process that makes the load: clients that send requests one after another and check the replies, and the
 * server behind the proxy, which sends back what it got. Its memory is not the proxy's. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proxy.h"

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- upstream --------------------------------------------------------------------------------------------------- */

static void *answer(void *arg) {
    int fd = (int)(intptr_t)arg;
    uint32_t header;
    char *body = malloc(MOST_BYTES);
    while (body && read_all(fd, &header, sizeof header) && ntohl(header) <= MOST_BYTES &&
           read_all(fd, body, ntohl(header)) && write_all(fd, &header, sizeof header) &&
           write_all(fd, body, ntohl(header))) {}
    free(body);
    close(fd);
    return NULL;
}

static void *serve(void *arg) {
    int listen_fd = (int)(intptr_t)arg, fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, answer, (void *)(intptr_t)fd) == 0)
            pthread_detach(thread);
        else
            close(fd);
    }
    return NULL;
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

struct client {
    pthread_t thread;
    uint16_t port;
    uint64_t rng, end_ms;
    bool failed;
};

static double next_uniform(uint64_t *rng) {
    *rng ^= *rng << 13; /* xorshift64 (Marsaglia 2003) */
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return (double)(*rng >> 11) / 9007199254740992.0; /* 2^53 */
}

/* A bounded Pareto distribution: from 10 KB to 3 MB, and, with this exponent, 100 KB on average. */
static size_t request_size(uint64_t *rng) {
    const double least = (double)LEAST_BYTES, most = (double)MOST_BYTES, exponent = 0.735;
    double size = least / pow(1 - next_uniform(rng) * (1 - pow(least / most, exponent)), 1 / exponent);
    return size > most ? MOST_BYTES : (size_t)size;
}

static bool one_request(struct client *c, int fd, char *body) {
    uint32_t size = (uint32_t)request_size(&c->rng), header = htonl(size), back = 0;
    memcpy(body, &c->rng, sizeof c->rng);
    memcpy(body + size - sizeof c->rng, &c->rng, sizeof c->rng);
    if (!write_all(fd, &header, sizeof header) || !write_all(fd, body, size)) return false;
    memset(body, 0, size);
    return read_all(fd, &back, sizeof back) && back == header && read_all(fd, body, size) &&
           memcmp(body, &c->rng, sizeof c->rng) == 0 &&
           memcmp(body + size - sizeof c->rng, &c->rng, sizeof c->rng) == 0;
}

static void *run_client(void *arg) {
    struct client *c = arg;
    char *body = malloc(MOST_BYTES);
    int fd = connect_to(c->port);
    c->failed = !body || fd < 0;
    while (!c->failed && now_ms() < c->end_ms) c->failed = !one_request(c, fd, body);
    if (fd >= 0) close(fd);
    free(body);
    return NULL;
}

static int run_load(const struct load *load) {
    struct client *clients = calloc(load->nconnections, sizeof *clients);
    bool failed = !clients;
    unsigned n = 0;
    for (; !failed && n < load->nconnections; n++) {
        clients[n].port = load->proxy_port;
        clients[n].rng = load->seed * (2 * n + 1);
        clients[n].end_ms = now_ms() + load->load_ms;
        if (pthread_create(&clients[n].thread, NULL, run_client, &clients[n]) != 0) break;
    }
    failed |= n < load->nconnections;
    for (unsigned i = 0; i < n; i++) {
        pthread_join(clients[i].thread, NULL);
        failed |= clients[i].failed;
    }
    free(clients);
    return failed;
}

int load_start(const struct load *load, uint16_t *upstream_port, int *port_fd) {
    int ends[2], listen_fd = proxy_listen(upstream_port);
    if (listen_fd < 0 || pipe(ends) != 0) return -1;
    int child = fork();
    if (child != 0) {
        close(listen_fd);
        close(ends[0]);
        *port_fd = ends[1];
        return child;
    }
    struct load mine = *load;
    pthread_t thread;
    close(ends[1]);
    if (!read_all(ends[0], &mine.proxy_port, sizeof mine.proxy_port) ||
        pthread_create(&thread, NULL, serve, (void *)(intptr_t)listen_fd) != 0)
        _exit(1);
    _exit(run_load(&mine));
}
