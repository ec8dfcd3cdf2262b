/* zbuf.c - byte queues over the pool's buffers, and what moves bytes between them and the system.
 *
 * Owns when a block is taken, exchanged for a larger one, and given back. Knows nothing of who reads or writes.
 *
 * Invariants:
 *  Z1. A zbuf has a block exactly while it holds a byte: each call that may leave it empty ends in drop_if_empty.
 *  Z2. Room is made before the system is asked, so no byte that the system hands over is ever without a place.
 *
 * How much room: what FIONREAD says is waiting, at least a byte. A read then gets all the room that there is, which may
 * be more than was waiting. Where the next size up cannot be had, the room that is there serves: a read is allowed to
 * be short, and a queue that is being emptied must go on under a pool that is at its limit. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "zbuf.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------------------------------- the contents */

void zbuf_init(struct zbuf *zb, struct bufpool *pool) {
    *zb = (struct zbuf){.pool = pool};
}

void zbuf_clear(struct zbuf *zb) {
    bufpool_give(zb->pool, zb->b);
    zb->b = NULL;
}

static void drop_if_empty(struct zbuf *zb) {
    if (zb->b && zb->b->length == 0) zbuf_clear(zb);
}

int zbuf_pop(struct zbuf *zb, size_t n) {
    if (n > zbuf_length(zb)) return zbuf_error(ZBUF_EINVAL, "zbuf_pop: %zu bytes of %zu", n, zbuf_length(zb));
    if (n > 0) buf_pop(zb->b, n);
    drop_if_empty(zb);
    return ZBUF_OK;
}

const char *zbuf_data(const struct zbuf *zb) {
    return zb->b ? buf_bytes(zb->b) : NULL;
}

size_t zbuf_length(const struct zbuf *zb) {
    return zb->b ? zb->b->length : 0;
}

void zbuf_adjust(struct zbuf *zb) {
    if (zb->b) buf_adjust(zb->b);
}

/* ----------------------------------------------------------------------------------------------------------- room */

/* Bytes that can be appended where they are. */
static size_t room_behind(const struct zbuf *zb) {
    return zb->b ? zb->b->capacity - zb->b->head - zb->b->length : 0;
}

/* Makes room for n bytes more: behind what is held, by moving that to the front, or in a larger block. */
static int reserve(struct zbuf *zb, size_t n) {
    struct buf *b = zb->b;
    if (!b) return bufpool_take(zb->pool, n, &zb->b);
    if (room_behind(zb) >= n) return ZBUF_OK;
    if (b->capacity - b->length >= n) {
        buf_adjust(b);
        return ZBUF_OK;
    }
    if (n > BUF_LARGEST_BYTES - b->length)
        return zbuf_error(ZBUF_ETOOLARGE,
                          "zbuf: %zu bytes more than the %zu held exceed the largest buffer (%d): pop first", n,
                          b->length, BUF_LARGEST_BYTES);
    struct buf *larger;
    int err = bufpool_take(zb->pool, b->length + n, &larger);
    if (err != ZBUF_OK) return err;
    buf_copy(larger, b);
    bufpool_give(zb->pool, b);
    zb->b = larger;
    return ZBUF_OK;
}

/* Makes room for about `waiting` bytes, but for no more than can ever be held; less will do where the pool has no
 * more. */
static int reserve_about(struct zbuf *zb, size_t waiting) {
    size_t most = BUF_LARGEST_BYTES - zbuf_length(zb);
    size_t n = waiting == 0 ? 1 : waiting;
    int err = reserve(zb, n > most && most > 0 ? most : n);
    if ((err != ZBUF_ELIMIT && err != ZBUF_ENOMEM) || !zb->b) return err;
    buf_adjust(zb->b);
    return room_behind(zb) > 0 ? ZBUF_OK : err;
}

int zbuf_read(struct zbuf *zb, const void *src, size_t n) {
    if (n == 0) return ZBUF_OK;
    int err = reserve(zb, n);
    return err == ZBUF_OK ? buf_set_bytes(zb->b, src, n) : err;
}

/* ----------------------------------------------------------------------------------- descriptors and connections */

/* The error for errno, in words that name the call. */
static int system_error(const char *call, int fd) {
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return zbuf_error(ZBUF_EAGAIN, "%s: descriptor %d has nothing to do now: wait until poll says so", call, fd);
    return zbuf_error(ZBUF_ESYSTEM, "%s: descriptor %d: %s", call, fd, strerror(errno));
}

/* Bytes that wait in a descriptor; 0 where the system cannot say, which is also what it says at the end. */
static size_t bytes_waiting(int fd) {
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 && n > 0 ? (size_t)n : 0;
}

/* One read, or one recv that never waits. */
static ssize_t read_once(struct zbuf *zb, int fd, bool is_conn, const char *call) {
    int err = reserve_about(zb, bytes_waiting(fd));
    if (err != ZBUF_OK) return err;
    char *at = buf_bytes(zb->b) + zb->b->length;
    size_t room = room_behind(zb);
    ssize_t n;
    do {
        n = is_conn ? recv(fd, at, room, MSG_DONTWAIT) : read(fd, at, room);
    } while (n < 0 && errno == EINTR);
    ssize_t result = n < 0 ? system_error(call, fd) : n;
    if (n > 0) zb->b->length += (size_t)n;
    int saved = errno;
    drop_if_empty(zb); /* Z1 */
    errno = saved;
    return result;
}

/* One write of what is held, popping what went; one send that never waits. */
static ssize_t write_once(struct zbuf *zb, int fd, bool is_conn, const char *call) {
    const char *from = zbuf_data(zb);
    size_t length = zbuf_length(zb);
    ssize_t n;
    do {
        n = is_conn ? send(fd, from, length, MSG_DONTWAIT | MSG_NOSIGNAL) : write(fd, from, length);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return system_error(call, fd);
    zbuf_pop(zb, (size_t)n);
    return n;
}

ssize_t zbuf_read_from_fd(struct zbuf *zb, int fd) {
    return read_once(zb, fd, false, "zbuf_read_from_fd");
}

static ssize_t write_all(struct zbuf *zb, int fd, const char *call) {
    ssize_t total = 0;
    while (zbuf_length(zb) > 0) {
        ssize_t n = write_once(zb, fd, false, call);
        if (n < 0) return total > 0 ? total : n;
        total += n;
    }
    return total;
}

ssize_t zbuf_write_to_fd(struct zbuf *zb, int fd) {
    return write_all(zb, fd, "zbuf_write_to_fd");
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits until poll reports `events` (or an error, which the next call meets), at most until `deadline_ms` when
 * timeout_ms is positive. */
static int wait_for(int fd, short events, int timeout_ms, int64_t deadline_ms, const char *call) {
    if (timeout_ms == 0)
        return zbuf_error(ZBUF_EAGAIN, "%s: descriptor %d has nothing to do now: wait until poll says so", call, fd);
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        int64_t left_ms = deadline_ms - now_ms();
        if (timeout_ms > 0 && left_ms <= 0)
            return zbuf_error(ZBUF_ETIMEDOUT, "%s: descriptor %d was not ready within %d ms", call, fd, timeout_ms);
        int n = poll(&p, 1, timeout_ms < 0 ? -1 : (int)left_ms);
        if (n > 0) return ZBUF_OK;
        if (n < 0 && errno != EINTR) return system_error(call, fd);
    }
}

ssize_t zbuf_read_from_conn(struct zbuf *zb, int fd, int timeout_ms) {
    static const char call[] = "zbuf_read_from_conn";
    int64_t deadline_ms = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
    for (;;) {
        ssize_t n = read_once(zb, fd, true, call);
        if (n != ZBUF_EAGAIN) return n;
        int err = wait_for(fd, POLLIN, timeout_ms, deadline_ms, call);
        if (err != ZBUF_OK) return err;
    }
}

ssize_t zbuf_write_to_conn(struct zbuf *zb, int fd, int timeout_ms) {
    static const char call[] = "zbuf_write_to_conn";
    int64_t deadline_ms = timeout_ms > 0 ? now_ms() + timeout_ms : 0;
    ssize_t total = 0;
    while (zbuf_length(zb) > 0) {
        ssize_t n = write_once(zb, fd, true, call);
        if (n == ZBUF_EAGAIN) n = wait_for(fd, POLLOUT, timeout_ms, deadline_ms, call);
        if (n < 0) return n == ZBUF_EAGAIN && total > 0 ? total : n;
        total += n;
    }
    return total;
}

/* ---------------------------------------------------------------------------------------------------------- files */

/* What is left of a regular file from its position on; 0 when that cannot be said. */
static size_t bytes_left(FILE *file) {
    struct stat st;
    off_t at = ftello(file);
    if (at < 0 || fstat(fileno(file), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= at) return 0;
    return (size_t)(st.st_size - at);
}

ssize_t zbuf_read_from_file(struct zbuf *zb, FILE *file) {
    size_t left = bytes_left(file);
    bool is_known = left > 0;
    ssize_t total = 0;
    int err;
    clearerr(file);
    while ((err = reserve_about(zb, left)) == ZBUF_OK) {
        size_t n = fread(buf_bytes(zb->b) + zb->b->length, 1, room_behind(zb), file);
        zb->b->length += n;
        total += (ssize_t)n;
        left = left > n ? left - n : 0;
        if (feof(file) || (is_known && left == 0)) break;
        if (!ferror(file)) continue;
        if (errno != EINTR) {
            err = system_error("zbuf_read_from_file", fileno(file));
            break;
        }
        clearerr(file); /* reading lost nothing: go on */
    }
    int saved = errno;
    drop_if_empty(zb); /* Z1 */
    errno = saved;
    return total > 0 ? total : err;
}

/* Past the stream's own buffer, because stdio throws that away when a write fails in the middle: what it held goes out
 * first, then ours by the descriptor, and then the stream is told where the file is now, which POSIX asks for. */
ssize_t zbuf_write_to_file(struct zbuf *zb, FILE *file) {
    static const char call[] = "zbuf_write_to_file";
    int fd = fileno(file);
    if (fflush(file) != 0) return system_error(call, fd);
    ssize_t result = write_all(zb, fd, call);
    int saved = errno;
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at >= 0) fseeko(file, at, SEEK_SET);
    errno = saved;
    return result;
}
