/* proxy.c - what is between client and server: a thread for each connection, a buffer for each request and one for each
 * reply. All waiting is done in buffers_wait, so that a collector need not wait for a thread that reads from a
 * socket. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 512 };

struct proxy_counts proxy_counts;

bool read_all(int fd, void *data, size_t size_bytes) {
    char *at = data;
    while (size_bytes > 0) {
        ssize_t n = read(fd, at, size_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size_bytes -= (size_t)n;
    }
    return true;
}

bool write_all(int fd, const void *data, size_t size_bytes) {
    const char *at = data;
    while (size_bytes > 0) {
        ssize_t n = send(fd, at, size_bytes, MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK) n = write(fd, at, size_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        at += n;
        size_bytes -= (size_t)n;
    }
    return true;
}

static struct sockaddr_in loopback(uint16_t port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

int proxy_listen(uint16_t *port) {
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, BACKLOG) == 0 &&
        getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
        *port = ntohs(address.sin_port);
        return fd;
    }
    close(fd);
    return -1;
}

int connect_to(uint16_t port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

/* ---- one connection --------------------------------------------------------------------------------------------- */

struct connection {
    int client, upstream;
    uint16_t upstream_port;
};

/* Bytes to be read or written by a thread that waits. */
struct transfer {
    int fd;
    void *data;
    size_t size_bytes;
    bool writes, ok;
};

static void *do_transfer(void *arg) {
    struct transfer *t = arg;
    t->ok = t->writes ? write_all(t->fd, t->data, t->size_bytes) : read_all(t->fd, t->data, t->size_bytes);
    return NULL;
}

static bool transfer(struct buffers *b, int fd, void *data, size_t size_bytes, bool writes) {
    struct transfer t = {fd, data, size_bytes, writes, false};
    buffers_wait(b, do_transfer, &t);
    return t.ok;
}

/* A message of one side into a buffer of this place; its bytes without the header, 0: none. */
static uint32_t receive(struct buffers *b, int fd, int place, void **data) {
    uint32_t header;
    if (!transfer(b, fd, &header, sizeof header, false)) return 0;
    uint32_t size_bytes = ntohl(header);
    if (size_bytes < LEAST_BYTES || size_bytes > MOST_BYTES) return 0;
    *data = buffers_take(b, place, size_bytes);
    return *data && transfer(b, fd, *data, size_bytes, false) ? size_bytes : 0;
}

static bool send_on(struct buffers *b, int fd, void *data, uint32_t size_bytes) {
    uint32_t header = htonl(size_bytes);
    return transfer(b, fd, &header, sizeof header, true) && transfer(b, fd, data, size_bytes, true);
}

/* One request and its reply. False: the connection is to be ended; *failed unless its client did that. */
static bool pass_one(struct buffers *b, const struct connection *c, bool *failed) {
    void *request = NULL, *reply = NULL;
    uint32_t size_bytes = receive(b, c->client, 0, &request), back;
    if (size_bytes == 0) return false; /* the client has nothing more to ask */
    bool ok = send_on(b, c->upstream, request, size_bytes);
    buffers_drop(b, 0);
    back = ok ? receive(b, c->upstream, 1, &reply) : 0;
    ok = back == size_bytes && send_on(b, c->client, reply, back);
    buffers_drop(b, 1);
    *failed = !ok;
    if (!ok) return false;
    __atomic_fetch_add(&proxy_counts.nrequests, 1, __ATOMIC_RELAXED); /* counters */
    __atomic_fetch_add(&proxy_counts.nbytes, 2 * (uint64_t)size_bytes, __ATOMIC_RELAXED);
    return true;
}

static void *serve_connection(void *arg) {
    struct connection *c = arg;
    struct buffers *b = buffers_enter();
    bool failed = !b;
    c->upstream = connect_to(c->upstream_port);
    failed |= c->upstream < 0;
    while (!failed && pass_one(b, c, &failed)) {}
    if (failed) __atomic_fetch_add(&proxy_counts.nfailed, 1, __ATOMIC_RELAXED); /* a counter */
    if (b) buffers_leave(b);
    if (c->upstream >= 0) close(c->upstream);
    close(c->client);
    free(c);
    __atomic_fetch_sub(&proxy_counts.nconnections, 1, __ATOMIC_RELEASE); /* main.c waits for zero */
    return NULL;
}

void *proxy_accept(void *arg) {
    const struct proxy_listener *listener = arg;
    int fd;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        struct connection *c = malloc(sizeof *c);
        __atomic_fetch_add(&proxy_counts.nconnections, 1, __ATOMIC_RELAXED); /* its thread's release comes later */
        if (c) *c = (struct connection){fd, -1, listener->upstream_port};
        if (c && buffers_thread(serve_connection, c)) continue;
        __atomic_fetch_sub(&proxy_counts.nconnections, 1, __ATOMIC_RELEASE);
        __atomic_fetch_add(&proxy_counts.nfailed, 1, __ATOMIC_RELAXED); /* a counter */
        close(fd);
        free(c);
    }
    return NULL;
}
