/* echo.c - a TCP echo server over epoll: what the buffers of zbuf.h are for.
 *
 * Each connection has one zbuf: what arrives is appended, what can be sent is taken off its front. While nothing is
 * under way it has no block, so ten thousand idle connections cost ten thousand `struct conn` and no buffer.
 *
 * Back pressure: above HIGH_BYTES held, a connection is not read any more until its peer has taken some, so a peer that
 * only sends fills its own socket and not the pool. When the pool is at its limit, a connection with a block goes on
 * with the room that it has, and one without is closed and counted as refused.
 *
 * Threads: each echo_run has an epoll instance and the connections that it accepted; threads share the listening socket
 * (EPOLLEXCLUSIVE wakes one of them for a new connection), the pool, and the eventfd that stops all of them: it is
 * written once and never read, so it stays readable for whoever looks later.
 *
 * Invariants:
 *  E1. A connection is watched for input unless it has ended or holds HIGH_BYTES, for output exactly while it holds a
 *      byte; one that is watched for neither has been closed. Hence level-triggered events never spin.
 *  E2. A connection's zbuf is cleared before it is freed, so after the last echo_run every block is back in the
 *    pool. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "echo.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HIGH_BYTES = 1 << 20, EVENTS_AT_ONCE = 64, BACKLOG = 512 };

struct echo_server {
    tri_heap *heap;       /* [const] */
    struct bufpool *pool; /* [const] */
    int listen_fd;        /* [const] */
    int stop_fd;          /* [const] */
    uint16_t port;        /* [const] */
    /* Counters, [atomic], relaxed. */
    atomic_uint_least64_t naccepted, nclosed, nrefused, echoed_bytes, nserving;
};

struct conn {
    struct conn *prev, *next; /* in the list of its thread */
    struct zbuf buf;
    int fd;
    uint32_t watched; /* EPOLLIN, EPOLLOUT */
    bool has_ended;   /* the peer sends no more */
};

/* One echo_run. */
struct worker {
    struct echo_server *server;
    int epoll_fd;
    struct conn *conns;
};

static void count(atomic_uint_least64_t *counter, uint64_t n) {
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------------ the server */

/* A listening socket, its port in *port; -1 with errno. */
static int listen_on_loopback(uint16_t *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(*port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

struct echo_server *echo_open(tri_heap *heap, struct bufpool *pool, uint16_t port) {
    struct echo_server *server = tri_manual_calloc(heap, 1, sizeof *server);
    if (!server) {
        zbuf_error(ZBUF_ENOMEM, "echo_open: %s", tri_last_error());
        return NULL;
    }
    server->heap = heap;
    server->pool = pool;
    server->port = port;
    server->listen_fd = listen_on_loopback(&server->port);
    server->stop_fd = server->listen_fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->stop_fd >= 0) return server;
    zbuf_error(ZBUF_ESYSTEM, "echo_open: 127.0.0.1, port %u: %s", (unsigned)port, strerror(errno));
    if (server->listen_fd >= 0) close(server->listen_fd);
    tri_manual_free(heap, server);
    return NULL;
}

uint16_t echo_port(const struct echo_server *server) {
    return server->port;
}

void echo_stop(struct echo_server *server) {
    ssize_t n;
    do {
        n = write(server->stop_fd, &(uint64_t){1}, sizeof(uint64_t));
    } while (n < 0 && errno == EINTR); /* EAGAIN: it was written 2^64 times, so it is readable */
}

void echo_close(struct echo_server *server) {
    if (!server) return;
    close(server->listen_fd);
    close(server->stop_fd);
    tri_manual_free(server->heap, server);
}

void echo_stats_get(struct echo_server *server, struct echo_stats *out) {
    out->naccepted = atomic_load_explicit(&server->naccepted, memory_order_relaxed);
    out->nclosed = atomic_load_explicit(&server->nclosed, memory_order_relaxed);
    out->nrefused = atomic_load_explicit(&server->nrefused, memory_order_relaxed);
    out->echoed_bytes = atomic_load_explicit(&server->echoed_bytes, memory_order_relaxed);
    out->nserving = atomic_load_explicit(&server->nserving, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------- one connection */

static void conn_close(struct worker *worker, struct conn *conn) {
    if (conn->prev) conn->prev->next = conn->next;
    if (conn->next) conn->next->prev = conn->prev;
    if (worker->conns == conn) worker->conns = conn->next;
    close(conn->fd); /* also takes it out of epoll */
    zbuf_clear(&conn->buf);
    tri_manual_free(worker->server->heap, conn);
    count(&worker->server->nclosed, 1);
}

/* Takes over an accepted socket; closes it when it cannot. */
static void conn_open(struct worker *worker, int fd) {
    struct echo_server *server = worker->server;
    count(&server->naccepted, 1);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct conn *conn = tri_manual_alloc(server->heap, sizeof *conn);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    if (!conn || epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        tri_manual_free(server->heap, conn);
        count(&server->nclosed, 1);
        count(&server->nrefused, 1);
        return;
    }
    *conn = (struct conn){.next = worker->conns, .fd = fd, .watched = EPOLLIN};
    zbuf_init(&conn->buf, server->pool);
    if (conn->next) conn->next->prev = conn;
    worker->conns = conn;
}

/* Reads once, if that is wanted. Whether the connection lives on. */
static bool conn_read(struct worker *worker, struct conn *conn) {
    if (!(conn->watched & EPOLLIN)) return true;
    ssize_t n = zbuf_read_from_conn(&conn->buf, conn->fd, 0);
    if (n == 0) conn->has_ended = true;
    if (n == ZBUF_ELIMIT || n == ZBUF_ENOMEM) count(&worker->server->nrefused, 1);
    return n >= 0 || n == ZBUF_EAGAIN;
}

/* Sends what can be sent. Whether the connection lives on. */
static bool conn_write(struct worker *worker, struct conn *conn) {
    size_t before = zbuf_length(&conn->buf);
    ssize_t n = zbuf_write_to_conn(&conn->buf, conn->fd, 0);
    count(&worker->server->echoed_bytes, before - zbuf_length(&conn->buf));
    return n >= 0 || n == ZBUF_EAGAIN;
}

/* Establishes E1. Whether the connection lives on. */
static bool conn_watch(struct worker *worker, struct conn *conn) {
    size_t held = zbuf_length(&conn->buf);
    uint32_t wanted = (!conn->has_ended && held < HIGH_BYTES ? EPOLLIN : 0u) | (held > 0 ? EPOLLOUT : 0u);
    if (wanted == conn->watched) return true;
    conn->watched = wanted;
    struct epoll_event event = {.events = wanted, .data.ptr = conn};
    return wanted != 0 && epoll_ctl(worker->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event) == 0;
}

/* ----------------------------------------------------------------------------------------------------- the worker */

/* Takes the connections that wait. When the process has no descriptor or memory for one, it stays in the queue and the
 * socket readable: a short sleep keeps that from becoming a busy loop. */
static void accept_waiting(struct worker *worker) {
    for (int i = 0; i < EVENTS_AT_ONCE; i++) {
        int fd = accept4(worker->server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_open(worker, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            return;
        } else if (errno == EAGAIN) {
            return;
        } /* else the peer has gone again (ECONNABORTED and its kin), or a signal came: the next one */
    }
}

/* Each socket's `data.ptr` is its connection; the two of the server are told by the addresses of its fields. */
static int watch_server(struct worker *worker) {
    struct echo_server *server = worker->server;
    struct epoll_event stop = {.events = EPOLLIN, .data.ptr = &server->stop_fd};
    struct epoll_event accept = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &server->listen_fd};
    if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, server->stop_fd, &stop) != 0) return -1;
    return epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &accept);
}

/* Handles one batch of events. False when it was told to stop. */
static bool serve_once(struct worker *worker) {
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = epoll_wait(worker->epoll_fd, events, EVENTS_AT_ONCE, -1);
    for (int i = 0; i < n; i++) {
        void *source = events[i].data.ptr;
        if (source == &worker->server->stop_fd) return false;
        if (source == &worker->server->listen_fd) {
            accept_waiting(worker);
            continue;
        }
        struct conn *conn = source; /* one event a connection a batch, so nobody closed it before */
        bool lives = conn_read(worker, conn) && conn_write(worker, conn) && conn_watch(worker, conn);
        if (!lives) conn_close(worker, conn);
    }
    return true;
}

int echo_run(struct echo_server *server) {
    struct worker worker = {.server = server, .epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    int err = worker.epoll_fd < 0 || watch_server(&worker) != 0 ? ZBUF_ESYSTEM : ZBUF_OK;
    if (err != ZBUF_OK) zbuf_error(err, "echo_run: epoll: %s", strerror(errno));
    if (err == ZBUF_OK) {
        count(&server->nserving, 1);
        while (serve_once(&worker)) {}
        atomic_fetch_sub_explicit(&server->nserving, 1, memory_order_relaxed);
    }
    while (worker.conns) conn_close(&worker, worker.conns); /* E2 */
    if (worker.epoll_fd >= 0) close(worker.epoll_fd);
    return err;
}
