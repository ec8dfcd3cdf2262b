/* test_zbuf_io.c - the byte queue of examples/zbuf over real files, pipes and sockets: every call, partial reads and
 * writes, what does not block, signals, time limits, and what the system refuses. */
#include "tests/zbuf_fixture.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

static FILE *temporary_file(void) {
    FILE *file = tmpfile();
    CHECK_MSG(file != NULL, "tmpfile: %s", strerror(errno));
    return file;
}

/* ---------------------------------------------------------------------------------------------------------- files */

TEST(zbuf_file, what_is_written_is_read_again) {
    static const size_t sizes[] = {1, 4095, 4096, 4097, 70000, LARGEST};
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        FILE *file = temporary_file();
        append_pattern(&zb, 7, sizes[i]);
        CHECK_EQ(zbuf_write_to_file(&zb, file), sizes[i]);
        CHECK(zb.b == NULL);
        CHECK_EQ(ftello(file), sizes[i]);
        rewind(file);
        CHECK_EQ(zbuf_read_from_file(&zb, file), sizes[i]);
        CHECK(holds_pattern(&zb, 7, sizes[i]));
        if (sizes[i] == 4096) CHECK_EQ(zb.b->capacity, 4096); /* no larger one just to see the end */
        zbuf_clear(&zb);
        CHECK_EQ(zbuf_read_from_file(&zb, file), 0);
        CHECK(zb.b == NULL);
        fclose(file);
    }
    zfix_close(&z);
}

/* The end of a file is where it ends now. */
TEST(zbuf_file, one_that_has_grown_is_read_on) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    FILE *file = temporary_file();
    CHECK_EQ(zbuf_read_from_file(&zb, file), 0);
    for (uint64_t at = 0; at < 10000; at += 500) {
        char *bytes = pattern_new(at, 500);
        CHECK_EQ(pwrite(fileno(file), bytes, 500, (off_t)at), 500);
        free(bytes);
        CHECK_EQ(zbuf_read_from_file(&zb, file), 500);
        CHECK(holds_pattern(&zb, 0, at + 500));
        CHECK_EQ(zbuf_read_from_file(&zb, file), 0);
        CHECK_EQ(fgetc(file), EOF);
    }
    zbuf_clear(&zb);
    fclose(file);
    zfix_close(&z);
}

/* The stream's own calls before and after, so that its buffer and its position are right on both sides. */
TEST(zbuf_file, goes_together_with_stdio) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    FILE *file = temporary_file();
    CHECK(fputs("head ", file) >= 0);
    CHECK_EQ(zbuf_read(&zb, "middle ", 7), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 7);
    CHECK(fputs("tail", file) >= 0);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 0);
    CHECK_EQ(ftello(file), 16);
    rewind(file);
    CHECK_EQ(fgetc(file), 'h');
    CHECK_EQ(zbuf_read_from_file(&zb, file), 15);
    CHECK(memcmp(zbuf_data(&zb), "ead middle tail", 15) == 0);
    CHECK_EQ(fgetc(file), EOF);
    rewind(file);
    CHECK_EQ(fgetc(file), 'h');
    CHECK_EQ(zbuf_write_to_file(&zb, file), 15); /* over what follows the one that was read */
    CHECK_EQ(ftello(file), 16);
    CHECK_EQ(fgetc(file), EOF);
    CHECK_EQ(fseeko(file, 5, SEEK_SET), 0);
    CHECK_EQ(zbuf_read(&zb, "MIDDLE", 6), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 6);
    CHECK_EQ(ftello(file), 11);
    CHECK(fputs("_", file) >= 0);
    rewind(file);
    CHECK_EQ(zbuf_read_from_file(&zb, file), 16);
    CHECK(memcmp(zbuf_data(&zb), "head MIDDLE_tail", 16) == 0);
    zbuf_clear(&zb);
    fclose(file);
    zfix_close(&z);
}

TEST(zbuf_file, one_larger_than_a_buffer_comes_in_parts) {
    enum { TOTAL = 2 * LARGEST + 12345 };
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    char *bytes = pattern_new(0, TOTAL);
    FILE *file = temporary_file();
    CHECK_EQ(fwrite(bytes, 1, TOTAL, file), TOTAL);
    free(bytes);
    for (int by_fd = 0; by_fd < 2; by_fd++) {
        rewind(file);
        ssize_t n;
        size_t total = 0;
        while ((n = by_fd ? zbuf_read_from_fd(&zb, fileno(file)) : zbuf_read_from_file(&zb, file)) > 0) {
            CHECK(holds_pattern(&zb, total, (size_t)n));
            CHECK_EQ(n, total + LARGEST <= TOTAL ? LARGEST : TOTAL - total);
            total += (size_t)n;
            if (n == LARGEST) { /* full: nothing more until some is popped */
                CHECK_EQ(zbuf_read_from_fd(&zb, fileno(file)), ZBUF_ETOOLARGE);
                CHECK_EQ(zbuf_read_from_file(&zb, file), ZBUF_ETOOLARGE);
            }
            CHECK_EQ(zbuf_pop(&zb, (size_t)n), ZBUF_OK);
        }
        CHECK_EQ(n, 0);
        CHECK_EQ(total, TOTAL);
    }
    fclose(file);
    zfix_close(&z);
}

TEST(zbuf_file, a_full_device_and_a_directory_are_errors) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    append_pattern(&zb, 0, 5000);
    FILE *full = fopen("/dev/full", "w");
    CHECK(full != NULL);
    CHECK_EQ(zbuf_write_to_file(&zb, full), ZBUF_ESYSTEM);
    check_words("No space left on device");
    CHECK_EQ(errno, ENOSPC);
    CHECK_EQ(zbuf_write_to_fd(&zb, fileno(full)), ZBUF_ESYSTEM);
    CHECK(holds_pattern(&zb, 0, 5000));
    fclose(full);
    FILE *folder = fopen("/", "r");
    CHECK(folder != NULL);
    CHECK_EQ(zbuf_read_from_file(&zb, folder), ZBUF_ESYSTEM);
    check_words("Is a directory");
    CHECK(holds_pattern(&zb, 0, 5000));
    zbuf_clear(&zb);
    CHECK_EQ(zbuf_read_from_fd(&zb, fileno(folder)), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EISDIR);
    CHECK(zb.b == NULL);
    fclose(folder);
    zfix_close(&z);
}

/* A file that may not grow takes a part, which is popped; the next call meets the error. */
TEST(zbuf_file, progress_before_an_error_is_told) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    FILE *file = temporary_file();
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){3000, RLIM_INFINITY}), 0);
    append_pattern(&zb, 0, 10000);
    CHECK_EQ(zbuf_write_to_file(&zb, file), 3000);
    CHECK(holds_pattern(&zb, 3000, 7000));
    CHECK_EQ(zbuf_write_to_file(&zb, file), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EFBIG);
    CHECK(holds_pattern(&zb, 3000, 7000));
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}), 0);
    CHECK_EQ(zbuf_write_to_fd(&zb, fileno(file)), 7000);
    rewind(file);
    CHECK_EQ(zbuf_read_from_file(&zb, file), 10000);
    CHECK(holds_pattern(&zb, 0, 10000));
    zbuf_clear(&zb);
    fclose(file);
    zfix_close(&z);
}

/* ---------------------------------------------------------------------------------------------- descriptors, pipes */

static void set_nonblocking(int fd) {
    CHECK_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

TEST(zbuf_fd, a_read_takes_all_that_waits_and_0_is_the_end) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    char *bytes = pattern_new(0, 50000);
    CHECK_EQ(write(fds[1], bytes, 50000), 50000);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 50000);
    CHECK(holds_pattern(&zb, 0, 50000));
    CHECK_EQ(zb.b->capacity, 64 * KIB);
    CHECK_EQ(write(fds[1], bytes, 1), 1);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 1);
    CHECK_EQ(zbuf_length(&zb), 50001);
    close(fds[1]);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 0);
    CHECK_EQ(zbuf_length(&zb), 50001);
    zbuf_clear(&zb);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), 0);
    CHECK(zb.b == NULL);
    close(fds[0]);
    free(bytes);
    zfix_close(&z);
}

TEST(zbuf_fd, one_that_does_not_block_says_so_and_takes_what_it_can) {
    struct zfix z = zfix_open();
    struct zbuf out, in;
    zbuf_init(&out, z.pool);
    zbuf_init(&in, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    set_nonblocking(fds[0]);
    set_nonblocking(fds[1]);
    CHECK_EQ(zbuf_read_from_fd(&in, fds[0]), ZBUF_EAGAIN);
    check_words("nothing to do now");
    CHECK(in.b == NULL);
    append_pattern(&out, 0, MIB);
    size_t got = 0;
    while (got < MIB) {
        ssize_t n = zbuf_write_to_fd(&out, fds[1]);
        CHECK(n > 0 || zbuf_length(&out) == 0);
        if (zbuf_length(&out) > 0) CHECK_EQ(zbuf_write_to_fd(&out, fds[1]), ZBUF_EAGAIN);
        CHECK_EQ(zbuf_length(&out), (size_t)MIB - got - (size_t)n);
        CHECK_EQ(zbuf_read_from_fd(&in, fds[0]), n);
        CHECK(holds_pattern(&in, got, (size_t)n));
        got += (size_t)n;
        zbuf_clear(&in);
    }
    CHECK_EQ(zbuf_write_to_fd(&out, fds[1]), 0);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}

TEST(zbuf_fd, errors_of_the_system_come_with_its_words) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    CHECK_EQ(zbuf_read_from_fd(&zb, -1), ZBUF_ESYSTEM);
    check_words("Bad file descriptor");
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(zbuf_read(&zb, "kept", 4), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_fd(&zb, -1), ZBUF_ESYSTEM);
    check_words("zbuf_write_to_fd: descriptor -1");
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    close(fds[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK_EQ(zbuf_write_to_fd(&zb, fds[1]), ZBUF_ESYSTEM);
    CHECK_EQ(errno, EPIPE);
    CHECK_EQ(zbuf_length(&zb), 4);
    close(fds[1]);
    zbuf_clear(&zb);
    zfix_close(&z);
}

/* At the limit a queue that holds something reads on with the room that it has. */
TEST(zbuf_fd, at_the_limit_the_room_that_is_there_serves) {
    struct zfix z = zfix_open_limit(4 * KIB);
    struct zbuf zb, other;
    zbuf_init(&zb, z.pool);
    zbuf_init(&other, z.pool);
    int fds[2];
    CHECK_EQ(pipe(fds), 0);
    char *bytes = pattern_new(0, 20000);
    CHECK_EQ(write(fds[1], bytes, 20000), 20000);
    free(bytes);
    CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), ZBUF_ELIMIT);
    CHECK_EQ(zbuf_read(&zb, "x", 1), ZBUF_OK);
    size_t got = 0;
    while (got < 20000) {
        ssize_t n = zbuf_read_from_fd(&zb, fds[0]);
        CHECK_MSG(n > 0, "%zd: %s", n, zbuf_last_error());
        CHECK_EQ(zbuf_read_from_fd(&other, fds[0]), ZBUF_ELIMIT); /* one without a block has no room at all */
        CHECK_EQ(zbuf_pop(&zb, zbuf_length(&zb) - (size_t)n), ZBUF_OK);
        CHECK(holds_pattern(&zb, got, (size_t)n));
        got += (size_t)n;
        if (got < 20000 && zbuf_length(&zb) == 4 * KIB) CHECK_EQ(zbuf_read_from_fd(&zb, fds[0]), ZBUF_ELIMIT);
        CHECK_EQ(zbuf_pop(&zb, (size_t)n - 1), ZBUF_OK);
    }
    zbuf_clear(&zb);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}

/* -------------------------------------------------------------------------------------------------------- signals */

static volatile sig_atomic_t nsignals;

static void on_signal(int number) {
    (void)number;
    nsignals = nsignals + 1;
}

/* Signals that interrupt system calls, every millisecond, to the thread that has not blocked them. */
static void interrupt_often(bool on) {
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    suseconds_t us = on ? 1000 : 0;
    setitimer(ITIMER_REAL, &(struct itimerval){{0, us}, {0, us}}, NULL);
}

struct feeder {
    int fd;
    uint64_t from;
    size_t n;
};

/* Writes a pattern with pauses, then closes. No signals here. */
static void *feed(void *arg) {
    struct feeder *feeder = arg;
    char *bytes = pattern_new(feeder->from, feeder->n);
    for (size_t done = 0; done < feeder->n;) {
        nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
        size_t part = feeder->n - done < 3000 ? feeder->n - done : 3000;
        ssize_t n = write(feeder->fd, bytes + done, part);
        CHECK(n > 0);
        done += (size_t)n;
    }
    close(feeder->fd);
    free(bytes);
    return NULL;
}

/* Reads everything slowly. */
static void *drain(void *arg) {
    struct feeder *drainer = arg;
    char bytes[1000];
    ssize_t n;
    uint64_t wrong = 0;
    while ((n = read(drainer->fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t i = 0; i < n; i++) wrong += bytes[i] != pattern(drainer->from + drainer->n + (uint64_t)i);
        drainer->n += (size_t)n;
        if (drainer->n % 8000 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    CHECK_EQ(wrong, 0);
    return NULL;
}

static pthread_t start_without_signals(void *(*fn)(void *), void *arg) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fn, arg), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return thread;
}

static ssize_t read_in_kind(struct zbuf *zb, int kind, int fd, FILE *file) {
    if (kind == 0) return zbuf_read_from_fd(zb, fd);
    return kind == 1 ? zbuf_read_from_file(zb, file) : zbuf_read_from_conn(zb, fd, 20000);
}

static ssize_t write_in_kind(struct zbuf *zb, int kind, int fd, FILE *file) {
    if (kind == 0) return zbuf_write_to_fd(zb, fd);
    return kind == 1 ? zbuf_write_to_file(zb, file) : zbuf_write_to_conn(zb, fd, 20000);
}

TEST(zbuf_fd, signals_do_not_disturb) {
    enum { TOTAL = 100000 };
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    for (int kind = 0; kind < 3; kind++) {
        int in[2], out[2];
        CHECK_EQ(kind == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, in) : pipe(in), 0);
        CHECK_EQ(kind == 2 ? socketpair(AF_UNIX, SOCK_STREAM, 0, out) : pipe(out), 0);
        struct feeder feeder = {in[1], 0, TOTAL}, drainer = {out[0], 0, 0};
        FILE *source = fdopen(in[0], "r"), *sink = fdopen(out[1], "w");
        CHECK(source && sink);
        pthread_t feeding = start_without_signals(feed, &feeder);
        nsignals = 0;
        interrupt_often(true);
        size_t got = 0;
        while (got < TOTAL) {
            ssize_t n = read_in_kind(&zb, kind, in[0], source);
            CHECK_MSG(n > 0, "kind %d: %zd: %s", kind, n, zbuf_last_error());
            got += (size_t)n;
        }
        CHECK(holds_pattern(&zb, 0, TOTAL));
        pthread_t draining = start_without_signals(drain, &drainer);
        append_pattern(&zb, TOTAL, TOTAL);
        CHECK_EQ(write_in_kind(&zb, kind, out[1], sink), 2 * TOTAL);
        interrupt_often(false);
        CHECK_MSG(nsignals > 5, "%d signals: the test is not about them any more", (int)nsignals);
        fclose(sink);
        fclose(source);
        pthread_join(feeding, NULL);
        pthread_join(draining, NULL);
        CHECK_EQ(drainer.n, 2 * TOTAL);
        close(out[0]);
    }
    zfix_close(&z);
}

/* ---------------------------------------------------------------------------------------------------- connections */

static uint64_t elapsed_ms(const struct timespec *since) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000);
}

TEST(zbuf_conn, waits_as_long_as_it_is_told) {
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); /* blocking ones: the limit holds all the same */
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[0], 0), ZBUF_EAGAIN);
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[0], 60), ZBUF_ETIMEDOUT);
    CHECK(elapsed_ms(&start) >= 59);
    check_words("within 60 ms");
    CHECK_EQ(pool_stats(z.pool).out_bytes, 0);
    append_pattern(&zb, 0, 4 * MIB);
    ssize_t first = zbuf_write_to_conn(&zb, fds[0], 0); /* a part of it, at once */
    CHECK_MSG(first > 0 && first < 4 * MIB, "%zd", first);
    CHECK_EQ(zbuf_length(&zb), (size_t)4 * MIB - (size_t)first);
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[0], 60), ZBUF_ETIMEDOUT);
    CHECK(elapsed_ms(&start) >= 59);
    size_t sent = (size_t)4 * MIB - zbuf_length(&zb);
    CHECK(holds_pattern(&zb, sent, (size_t)4 * MIB - sent)); /* what went is gone, the rest is there */
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[0], 0), ZBUF_EAGAIN);
    zbuf_clear(&zb);
    size_t got = 0;
    for (ssize_t n; got < sent; got += (size_t)n, zbuf_clear(&zb)) {
        n = zbuf_read_from_conn(&zb, fds[1], -1);
        CHECK(n > 0 && holds_pattern(&zb, got, (size_t)n));
    }
    CHECK_EQ(got, sent);
    close(fds[0]);
    CHECK_EQ(zbuf_read_from_conn(&zb, fds[1], -1), 0);
    CHECK_EQ(zbuf_read(&zb, "x", 1), ZBUF_OK);
    CHECK_EQ(zbuf_write_to_conn(&zb, fds[1], -1), ZBUF_ESYSTEM); /* and no SIGPIPE */
    CHECK_EQ(errno, EPIPE);
    CHECK_EQ(zbuf_length(&zb), 1);
    zbuf_clear(&zb);
    close(fds[1]);
    zfix_close(&z);
}

struct mover {
    struct bufpool *pool;
    int fd;
    size_t n;
    uint64_t nwrong;
};

/* Sends a pattern in pieces through a queue, and takes the other one meanwhile. */
static void *send_pieces(void *arg) {
    struct mover *m = arg;
    struct zbuf zb;
    zbuf_init(&zb, m->pool);
    uint64_t seed = 4711;
    for (size_t done = 0; done < m->n;) {
        size_t part = next_random(&seed) % (300 * KIB) + 1;
        if (part > m->n - done) part = m->n - done;
        append_pattern(&zb, done, part);
        if (zbuf_write_to_conn(&zb, m->fd, 20000) < 0) m->nwrong++;
        done += part;
    }
    shutdown(m->fd, SHUT_WR);
    return NULL;
}

TEST(zbuf_conn, two_threads_move_a_stream_larger_than_every_buffer) {
    size_t total = TEST_IS_SLOW ? (size_t)3 * MIB : (size_t)24 * MIB;
    struct zfix z = zfix_open();
    struct zbuf zb;
    zbuf_init(&zb, z.pool);
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct mover m = {z.pool, fds[0], total, 0};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, send_pieces, &m), 0);
    size_t got = 0;
    ssize_t n;
    while ((n = zbuf_read_from_conn(&zb, fds[1], 20000)) > 0) {
        got += (size_t)n;
        size_t held = zbuf_length(&zb);
        CHECK(holds_pattern(&zb, got - held, held));
        CHECK_EQ(zbuf_pop(&zb, held - held / 3), ZBUF_OK); /* some stays, so that the next read appends */
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(got, total);
    pthread_join(thread, NULL);
    CHECK_EQ(m.nwrong, 0);
    zbuf_clear(&zb);
    close(fds[0]);
    close(fds[1]);
    zfix_close(&z);
}
