/* test_zbuf_echo.c - the echo server of examples/zbuf under many connections: every byte that comes back is checked,
 * and when the server has stopped the pool has all of its buffers and the heap no manual byte.
 *
 * The clients use the same queues, without waiting, on one thread for each group of connections: a connection sends one
 * message of random size and wants all of it back before the next. Message bytes are a function of the connection and
 * of their place in its stream. */
#include "tests/zbuf_fixture.h"

#include "examples/zbuf/echo.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { SERVER_THREADS = 2, CLIENT_THREADS = 4, GROUP_MOST = 64 };

/* ------------------------------------------------------------------------------------------------------ the server */

struct efix {
    struct fixture f;
    struct bufpool *pool;
    struct echo_server *server;
    pthread_t threads[SERVER_THREADS];
};

static void *serve(void *server) {
    int err = echo_run(server);
    CHECK_MSG(err == ZBUF_OK, "echo_run: %d: %s", err, zbuf_last_error());
    return NULL;
}

static struct efix efix_open(size_t limit_bytes) {
    struct efix e = {.f = fixture_open()};
    struct bufpool_config config;
    bufpool_config_init(&config);
    if (limit_bytes > 0) config = (struct bufpool_config){.limit_bytes = limit_bytes};
    int err = bufpool_create(e.f.heap, &config, &e.pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_create: %d: %s", err, zbuf_last_error());
    e.server = echo_open(e.f.heap, e.pool, 0);
    CHECK_MSG(e.server != NULL, "%s", zbuf_last_error());
    for (int i = 0; i < SERVER_THREADS; i++) CHECK_EQ(pthread_create(&e.threads[i], NULL, serve, e.server), 0);
    struct echo_stats stats;
    do {
        echo_stats_get(e.server, &stats);
    } while (stats.nserving < SERVER_THREADS && nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL) == 0);
    return e;
}

static struct echo_stats efix_stop(struct efix *e) {
    struct echo_stats stats;
    echo_stop(e->server);
    for (int i = 0; i < SERVER_THREADS; i++) pthread_join(e->threads[i], NULL);
    echo_stats_get(e->server, &stats);
    CHECK_EQ(stats.naccepted, stats.nclosed);
    CHECK_EQ(stats.nserving, 0);
    return stats;
}

static void efix_close(struct efix *e) {
    echo_close(e->server);
    int err = bufpool_destroy(e->pool);
    CHECK_MSG(err == ZBUF_OK, "bufpool_destroy: %d: %s", err, zbuf_last_error());
    CHECK_EQ(tri_manual_bytes(e->f.heap), 0);
    fixture_close(&e->f);
}

/* ------------------------------------------------------------------------------------------------------ the clients */

static int connect_to(struct echo_server *server) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(echo_port(server))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_MSG(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect: %s", strerror(errno));
    return fd;
}

/* Mostly some kilobytes, sometimes more than the next sizes of buffers hold, now and then more than the server holds
 * for one connection. */
static size_t message_bytes(uint64_t r) {
    uint64_t kind = r % 100, size = r / 100;
    if (kind < 80) return 1 + size % (6 * KIB);
    if (kind < 98) return 1 + size % (100 * KIB);
    return 1 + size % (3 * MIB);
}

static char stream_byte(uint64_t stream, uint64_t i) {
    return pattern(i + stream * 1000003);
}

struct client {
    struct zbuf out, in;
    int fd;
    uint64_t stream, seed;
    uint64_t nsent, nreceived; /* bytes appended to `out`, bytes checked */
    unsigned nmessages;        /* still to be sent */
};

struct group {
    struct efix *e;
    unsigned nclients, nmessages;
    uint64_t first_stream;
    uint64_t nbytes;
};

/* Puts the next message into the queue. */
static void client_say(struct client *c) {
    size_t n = message_bytes(next_random(&c->seed));
    char *bytes = malloc(n);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < n; i++) bytes[i] = stream_byte(c->stream, c->nsent + i);
    int err = zbuf_read(&c->out, bytes, n);
    CHECK_MSG(err == ZBUF_OK, "zbuf_read: %d: %s", err, zbuf_last_error());
    free(bytes);
    c->nsent += n;
    c->nmessages--;
}

/* Checks what has come back and drops it. */
static void client_check(struct client *c) {
    const char *data = zbuf_data(&c->in);
    size_t n = zbuf_length(&c->in);
    for (size_t i = 0; i < n; i++) {
        CHECK_MSG(data[i] == stream_byte(c->stream, c->nreceived + i), "stream %" PRIu64 ", byte %" PRIu64 " is wrong",
                  c->stream, c->nreceived + i);
    }
    c->nreceived += n;
    zbuf_clear(&c->in);
}

/* Does what can be done now. Whether it is done altogether. */
static bool client_step(struct client *c) {
    if (c->nreceived == c->nsent && c->nmessages > 0) client_say(c);
    ssize_t n = zbuf_write_to_conn(&c->out, c->fd, 0);
    CHECK_MSG(n >= 0 || n == ZBUF_EAGAIN, "write: %zd: %s", n, zbuf_last_error());
    while ((n = zbuf_read_from_conn(&c->in, c->fd, 0)) > 0) client_check(c);
    CHECK_MSG(n == ZBUF_EAGAIN, "read: %zd: %s", n, zbuf_last_error());
    return c->nreceived == c->nsent && c->nmessages == 0;
}

static void client_open(struct client *c, struct group *g, unsigned i) {
    uint64_t stream = g->first_stream + i;
    *c = (struct client){.stream = stream, .seed = 1 + stream * 0x12345, .nmessages = g->nmessages};
    c->fd = connect_to(g->e->server);
    zbuf_init(&c->out, g->e->pool);
    zbuf_init(&c->in, g->e->pool);
}

/* The end of a connection in order: no more is sent, nothing more comes. */
static void client_close(struct client *c) {
    CHECK_EQ(shutdown(c->fd, SHUT_WR), 0);
    ssize_t n = zbuf_read_from_conn(&c->in, c->fd, 30000);
    CHECK_MSG(n == 0, "%zd at the end: %s", n, zbuf_last_error());
    close(c->fd);
}

/* Runs all connections of a group until each has sent and checked its messages. */
static void *group_run(void *arg) {
    struct group *g = arg;
    struct client clients[GROUP_MOST];
    struct pollfd polled[GROUP_MOST];
    unsigned nleft = g->nclients;
    for (unsigned i = 0; i < g->nclients; i++) {
        client_open(&clients[i], g, i);
        polled[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN | POLLOUT};
    }
    while (nleft > 0) {
        int n = poll(polled, g->nclients, 60000);
        CHECK_MSG(n > 0, "nothing moves any more: %u of %u connections are not done", nleft, g->nclients);
        for (unsigned i = 0; i < g->nclients; i++) {
            if (polled[i].fd < 0 || polled[i].revents == 0) continue;
            bool done = client_step(&clients[i]);
            short out = zbuf_length(&clients[i].out) > 0 || clients[i].nreceived == clients[i].nsent ? POLLOUT : 0;
            polled[i].events = (short)(POLLIN | out);
            if (!done) continue;
            polled[i].fd = -1;
            nleft--;
        }
    }
    for (unsigned i = 0; i < g->nclients; i++) {
        g->nbytes += clients[i].nreceived;
        client_close(&clients[i]);
    }
    return NULL;
}

static uint64_t run_groups(struct efix *e, unsigned nclients, unsigned nmessages) {
    pthread_t threads[CLIENT_THREADS];
    struct group groups[CLIENT_THREADS];
    uint64_t nbytes = 0;
    for (unsigned i = 0; i < CLIENT_THREADS; i++) {
        unsigned n = nclients / CLIENT_THREADS;
        groups[i] = (struct group){e, n, nmessages, (uint64_t)i * n, 0};
        CHECK_EQ(pthread_create(&threads[i], NULL, group_run, &groups[i]), 0);
    }
    for (unsigned i = 0; i < CLIENT_THREADS; i++) {
        pthread_join(threads[i], NULL);
        nbytes += groups[i].nbytes;
    }
    return nbytes;
}

/* -------------------------------------------------------------------------------------------------------- the tests */

TEST(echo, many_connections_get_back_what_they_send) {
    unsigned nclients = TEST_IS_SLOW ? 40 : 200, nmessages = TEST_IS_SLOW ? 10 : 100;
    struct efix e = efix_open(0);
    uint64_t nbytes = run_groups(&e, nclients, nmessages);
    struct bufpool_stats pool;
    struct echo_stats stats = efix_stop(&e);
    CHECK_EQ(stats.naccepted, nclients);
    CHECK_EQ(stats.nrefused, 0);
    CHECK_EQ(stats.echoed_bytes, nbytes);
    bufpool_stats_get(e.pool, &pool);
    CHECK_EQ(pool.out_bytes, 0);
    unsigned nsizes = 0;
    for (int i = 0; i < BUF_NSIZES; i++) nsizes += pool.nbuilt[i] > 0;
    CHECK_MSG(nsizes >= 5, "only %u sizes of buffers were used", nsizes);
    efix_close(&e);
}

/* A peer that sends and never reads fills the server's share for one connection and its own socket, and no more. */
TEST(echo, a_peer_that_does_not_read_is_not_read_from) {
    struct efix e = efix_open(0);
    struct zbuf zb;
    zbuf_init(&zb, e.pool);
    int fd = connect_to(e.server);
    CHECK_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){16 * KIB}, sizeof(int)), 0);
    struct bufpool_stats pool;
    size_t nsent = 0;
    ssize_t n = 0;
    for (int ntimeouts = 0; nsent < (size_t)256 * MIB && ntimeouts < 200;) {
        size_t length = zbuf_length(&zb);
        for (; length < MIB; length++) CHECK_EQ(zbuf_read(&zb, &(char){stream_byte(1, nsent + length)}, 1), ZBUF_OK);
        n = zbuf_write_to_conn(&zb, fd, 300);
        nsent += length - zbuf_length(&zb);
        ntimeouts += n < 0;
        bufpool_stats_get(e.pool, &pool);
        if (n < 0 && pool.out_bytes >= MIB) break; /* else the server has not had a core for so long */
    }
    CHECK_EQ(n, ZBUF_ETIMEDOUT);
    CHECK_MSG(nsent < (size_t)100 * MIB, "%zu bytes went", nsent);
    zbuf_clear(&zb);
    bufpool_stats_get(e.pool, &pool);
    CHECK_MSG(pool.out_bytes >= MIB && pool.out_bytes <= 8 * MIB, "%zu bytes are out", pool.out_bytes);
    size_t got = 0;
    CHECK_EQ(shutdown(fd, SHUT_WR), 0);
    while ((n = zbuf_read_from_conn(&zb, fd, 30000)) > 0) { /* and then all of it comes */
        const char *data = zbuf_data(&zb);
        for (size_t i = 0; i < (size_t)n; i++) CHECK(data[i] == stream_byte(1, got + i));
        got += (size_t)n;
        zbuf_clear(&zb);
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(got, nsent);
    close(fd);
    efix_stop(&e);
    efix_close(&e);
}

/* With a pool of two buffers of 4 KiB the third connection that sends is closed, and the others live on. */
TEST(echo, at_the_limit_of_the_pool_a_connection_is_refused) {
    struct efix e = efix_open(8 * KIB);
    struct fixture f = fixture_open();
    struct bufpool *own = NULL;
    struct zbuf zb;
    CHECK_EQ(bufpool_create(f.heap, NULL, &own), ZBUF_OK);
    zbuf_init(&zb, own);
    struct buf *held[2];
    CHECK_EQ(bufpool_take(e.pool, 1, &held[0]), ZBUF_OK);
    CHECK_EQ(bufpool_take(e.pool, 1, &held[1]), ZBUF_OK);
    int refused = connect_to(e.server), served = connect_to(e.server);
    CHECK_EQ(send(refused, "hello", 5, MSG_NOSIGNAL), 5);
    ssize_t n = zbuf_read_from_conn(&zb, refused, 30000);
    CHECK_MSG(n == 0 || (n == ZBUF_ESYSTEM && errno == ECONNRESET), "%zd: %s", n, zbuf_last_error());
    bufpool_give(e.pool, held[0]);
    bufpool_give(e.pool, held[1]);
    CHECK_EQ(send(served, "hello", 5, MSG_NOSIGNAL), 5);
    while (zbuf_length(&zb) < 5) CHECK(zbuf_read_from_conn(&zb, served, 30000) > 0);
    CHECK(memcmp(zbuf_data(&zb), "hello", 5) == 0);
    zbuf_clear(&zb);
    CHECK_EQ(bufpool_destroy(own), ZBUF_OK);
    fixture_close(&f);
    close(refused);
    close(served);
    struct echo_stats stats = efix_stop(&e);
    CHECK_EQ(stats.nrefused, 1);
    efix_close(&e);
}

/* Connections that are idle, half sent, reset, or gone, when the stop comes. */
TEST(echo, stops_cleanly_in_the_middle_of_everything) {
    struct efix e = efix_open(0);
    int fds[40];
    char *bytes = calloc(1, 200 * KIB);
    CHECK(bytes != NULL);
    for (int i = 0; i < 40; i++) {
        fds[i] = connect_to(e.server);
        if (i % 4 > 0) CHECK(send(fds[i], bytes, (size_t)(i % 4) * 60 * KIB, MSG_NOSIGNAL | MSG_DONTWAIT) > 0);
        if (i % 5 == 1) setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
        if (i % 5 <= 1) close(fds[i]); /* with a reset, or in order */
    }
    struct echo_stats stats;
    do {
        echo_stats_get(e.server, &stats);
    } while (stats.naccepted < 30 && nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL) == 0);
    efix_stop(&e);
    for (int i = 0; i < 40; i++) {
        if (i % 5 > 1) close(fds[i]);
    }
    free(bytes);
    efix_close(&e);
}

TEST(echo, a_port_in_use_is_an_error_in_words) {
    struct efix e = efix_open(0);
    CHECK(echo_open(e.f.heap, e.pool, echo_port(e.server)) == NULL);
    CHECK_MSG(strstr(zbuf_last_error(), "Address already in use"), "%s", zbuf_last_error());
    efix_stop(&e);
    CHECK_EQ(echo_run(e.server), ZBUF_OK); /* one that begins after the stop ends at once */
    efix_close(&e);
}

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Without a descriptor for it a connection waits in the queue, costs next to nothing meanwhile, and is served
 * when there is one again. */
TEST(echo, a_connection_without_a_descriptor_waits) {
    struct efix e = efix_open(0);
    struct zbuf zb;
    zbuf_init(&zb, e.pool);
    int fd = connect_to(e.server);
    CHECK_EQ(zbuf_read(&zb, "once", 4), ZBUF_OK); /* accepted for certain when it answers */
    CHECK_EQ(zbuf_write_to_conn(&zb, fd, 30000), 4);
    while (zbuf_length(&zb) < 4) CHECK(zbuf_read_from_conn(&zb, fd, 30000) > 0);
    zbuf_clear(&zb);
    int waiting = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), highest = dup(fd);
    struct rlimit before;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)highest, before.rlim_max}), 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(echo_port(e.server))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(connect(waiting, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(send(waiting, "twice", 5, MSG_NOSIGNAL), 5);
    double before_s = cpu_seconds();
    CHECK_EQ(zbuf_read_from_conn(&zb, waiting, 400), ZBUF_ETIMEDOUT);
    double used_s = cpu_seconds() - before_s;
    CHECK_MSG(used_s < 0.1, "%.3f s of processor time in 0.4 s of waiting", used_s);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (zbuf_length(&zb) < 5) CHECK(zbuf_read_from_conn(&zb, waiting, 30000) > 0);
    zbuf_clear(&zb);
    close(fd);
    close(waiting);
    close(highest);
    efix_stop(&e);
    efix_close(&e);
}
