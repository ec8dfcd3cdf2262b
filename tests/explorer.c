/*
 * explorer.c: see explorer.h.
 *
 * A depth-first search. A node is a graph: events in the order in which they were added, each with the set of events
 * that happen before it, and for each location its writes in modification order. The threads' program counters and
 * registers follow from the graph and are kept beside it. From a node each thread's next access is tried with each
 * write that it may read from and, if it writes, at each place in the modification order that coherence leaves; and
 * each relaxed write further down that nothing holds back (may_come_early). What is skipped then is neither acquire nor
 * seq_cst, and a release comes after all that precedes it; so whatever another thread learns of an event it learns when
 * all that precedes the event is there, and sets of what happens before are complete where they count.
 */
#include "tests/explorer.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- programs ---------------------------------------------------------------------------------------------------- */

void ex_begin(struct ex_program *p, const char *name) {
    memset(p, 0, sizeof *p);
    p->name = name;
}

static void too_much(const char *what) {
    fprintf(stderr, "explorer: too many %s\n", what);
    abort();
}

int ex_loc(struct ex_program *p, const char *name, int initial) {
    if (p->nlocs == EX_LOCS) too_much("locations");
    p->loc_names[p->nlocs] = name;
    p->initial[p->nlocs] = initial;
    return (int)p->nlocs++;
}

void ex_thread(struct ex_program *p, const char *name) {
    if (p->nthreads == EX_THREADS) too_much("threads");
    p->thread_names[p->nthreads++] = name;
}

static void put(struct ex_program *p, struct ex_instr instr) {
    unsigned t = p->nthreads - 1;
    if (p->ninstrs[t] == EX_INSTRS) too_much("instructions");
    if (instr.reg >= EX_REG) instr.reg -= EX_REG;
    p->code[t][p->ninstrs[t]++] = instr;
}

void ex_load(struct ex_program *p, int reg, int loc, enum order order) {
    put(p, (struct ex_instr){.op = EX_LOAD, .reg = reg, .loc = loc, .order = order});
}
void ex_store(struct ex_program *p, int loc, int value, enum order order) {
    put(p, (struct ex_instr){.op = EX_STORE, .loc = loc, .value = value, .order = order});
}
static void put_rmw(struct ex_program *p, enum ex_op op, int reg, int loc, int value, enum order order) {
    put(p, (struct ex_instr){.op = op, .reg = reg, .loc = loc, .value = value, .order = order});
}
void ex_add(struct ex_program *p, int reg, int loc, int value, enum order order) {
    put_rmw(p, EX_ADD, reg, loc, value, order);
}
void ex_or(struct ex_program *p, int reg, int loc, int value, enum order order) {
    put_rmw(p, EX_OR, reg, loc, value, order);
}
void ex_and(struct ex_program *p, int reg, int loc, int value, enum order order) {
    put_rmw(p, EX_AND, reg, loc, value, order);
}
void ex_swap(struct ex_program *p, int reg, int loc, int value, enum order order) {
    put_rmw(p, EX_SWAP, reg, loc, value, order);
}
void ex_cas(struct ex_program *p, int reg, int loc, int expected, int value, enum order order) {
    put(p,
        (struct ex_instr){.op = EX_CAS, .reg = reg, .loc = loc, .expected = expected, .value = value, .order = order});
}
void ex_await(struct ex_program *p, int reg, int loc, enum cmp cmp, int value, enum order order) {
    put(p, (struct ex_instr){.op = EX_AWAIT, .reg = reg, .loc = loc, .cmp = cmp, .value = value, .order = order});
}
void ex_set(struct ex_program *p, int reg, int value) {
    put(p, (struct ex_instr){.op = EX_SET, .reg = reg, .value = value});
}
void ex_plus(struct ex_program *p, int reg, int value) {
    put(p, (struct ex_instr){.op = EX_PLUS, .reg = reg, .value = value});
}
void ex_when(struct ex_program *p, int reg, enum cmp cmp, int value, int ninstrs) {
    put(p, (struct ex_instr){.op = EX_WHEN, .reg = reg, .cmp = cmp, .value = value, .skip = ninstrs});
}
void ex_end(struct ex_program *p) {
    put(p, (struct ex_instr){.op = EX_END});
}
void ex_fail(struct ex_program *p, const char *text) {
    put(p, (struct ex_instr){.op = EX_FAIL, .text = text});
}
/* A swap that waits: an await whose read is a compare-and-swap of 0 by 1. */
void ex_lock(struct ex_program *p, int loc, enum order acquire) {
    put(p, (struct ex_instr){.op = EX_CAS, .reg = -1, .loc = loc, .expected = 0, .value = 1, .order = acquire});
}
void ex_unlock(struct ex_program *p, int loc, enum order release) {
    ex_store(p, loc, 0, release);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

struct event {
    uint64_t before; /* events that happen before it */
    uint64_t gives;  /* of a write: what an acquire that reads from it gets to know */
    int read, written;
    int8_t thread, index; /* -1: an initial value; its instruction */
    int8_t loc;
    int8_t from; /* the write that it reads, -1: it reads nothing */
    bool reads, writes, seq, plain;
    uint8_t op, order;
};

struct thread {
    unsigned pc;
    uint64_t done; /* instructions from pc on whose writes came early */
    bool ended;
    int regs[EX_REGS];
};

struct graph {
    unsigned nevents;
    struct event events[EX_EVENTS];
    int8_t mo[EX_LOCS][EX_EVENTS]; /* writes in modification order */
    uint8_t nmo[EX_LOCS];
    struct thread threads[EX_THREADS];
};

struct search {
    const struct ex_program *p;
    ex_judge judge;
    struct ex_result *result;
    uint64_t (*seen)[2]; /* open addressing; 0, 0: free */
    size_t capacity, nseen;
};

static int value_of(const struct thread *t, int value) {
    return value >= EX_REG ? t->regs[value - EX_REG] : value;
}

static bool fits(int a, enum cmp cmp, int b) {
    switch (cmp) {
    case EQ: return a == b;
    case NE: return a != b;
    case GE: return a >= b;
    case LT: return a < b;
    }
    return false;
}

static int mo_place(const struct graph *g, int loc, int event) {
    int i = 0;
    while (g->mo[loc][i] != event) i++;
    return i;
}

static uint64_t bit_of(int event) {
    return 1ull << event;
}

/* The first place in modification order that an access with this past may read from, or write behind. */
static int first_place(const struct graph *g, int loc, uint64_t past) {
    int first = 0;
    for (unsigned e = 0; e < g->nevents; e++) {
        const struct event *ev = &g->events[e];
        if (ev->loc != loc || !(past & bit_of((int)e))) continue;
        int place = mo_place(g, loc, ev->writes ? (int)e : ev->from);
        if (place > first) first = place;
    }
    return first;
}

/* What an instruction's event has before it, apart from what it reads. */
static uint64_t past_of(const struct graph *g, const struct ex_program *p, int thread, int index) {
    uint64_t past = (1ull << p->nlocs) - 1; /* the initial values */
    for (unsigned e = p->nlocs; e < g->nevents; e++)
        if (g->events[e].thread == thread && g->events[e].index < index) past |= g->events[e].before | bit_of((int)e);
    return past;
}

/* ---- one order of all seq_cst accesses --------------------------------------------------------------------------- */

static bool in_program_order(const struct event *a, const struct event *b) {
    return a->thread == b->thread && a->index < b->index;
}

static bool happens_before(const struct graph *g, int a, int b) {
    return (g->events[b].before >> a & 1) || in_program_order(&g->events[a], &g->events[b]);
}

/* a before b in modification order, or a reads from what b comes after. */
static bool in_mo_or_rb(const struct graph *g, int a, int b) {
    const struct event *x = &g->events[a], *y = &g->events[b];
    if (x->loc != y->loc || !y->writes || a == b) return false;
    int at = mo_place(g, y->loc, b);
    if (x->writes && mo_place(g, x->loc, a) < at) return true;
    return x->reads && mo_place(g, x->loc, x->from) < at;
}

/* a is left by a step of its thread to another location, from which something happens before a step to b. */
static bool around(const struct graph *g, int a, int b) {
    const struct event *x = &g->events[a], *y = &g->events[b];
    for (unsigned c = 0; c < g->nevents; c++) {
        const struct event *m = &g->events[c];
        if (!in_program_order(x, m) || m->loc == x->loc) continue;
        for (unsigned d = 0; d < g->nevents; d++) {
            const struct event *n = &g->events[d];
            if (in_program_order(n, y) && n->loc != y->loc && happens_before(g, (int)c, (int)d)) return true;
        }
    }
    return false;
}

static bool scb(const struct graph *g, int a, int b) {
    const struct event *x = &g->events[a], *y = &g->events[b];
    return in_program_order(x, y) || in_mo_or_rb(g, a, b) || (x->loc == y->loc && happens_before(g, a, b)) ||
           around(g, a, b);
}

/* False: the seq_cst accesses have no order that all threads can agree on. */
static bool seq_agrees(const struct graph *g) {
    int nodes[EX_EVENTS], n = 0;
    uint64_t after[EX_EVENTS] = {0}, left = 0;
    for (unsigned e = 0; e < g->nevents; e++)
        if (g->events[e].seq) nodes[n++] = (int)e;
    for (int i = 0; i < n; i++) {
        left |= bit_of(i);
        for (int j = 0; j < n; j++)
            if (i != j && scb(g, nodes[i], nodes[j])) after[i] |= bit_of(j);
    }
    for (bool removed = true; removed && left;) { /* those that nothing comes before, until none is left */
        removed = false;
        uint64_t targets = 0;
        for (int i = 0; i < n; i++)
            if (left & bit_of(i)) targets |= after[i];
        for (int i = 0; i < n; i++)
            if ((left & bit_of(i)) && !(targets & bit_of(i))) left &= ~bit_of(i), removed = true;
    }
    return left == 0;
}

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static void say(struct ex_result *r, const char *format, ...) {
    size_t n = strlen(r->trace);
    va_list args;
    va_start(args, format);
    vsnprintf(r->trace + n, sizeof r->trace - n, format, args);
    va_end(args);
}

static void tell(struct search *s, const struct graph *g, const char *wrong) {
    static const char *const ops[] = {"load", "store", "add", "or", "and", "swap", "cas", "await"};
    static const char *const orders[] = {"plain", "relaxed", "acquire", "release", "acq_rel", "seq_cst"};
    struct ex_result *r = s->result;
    r->wrong = wrong;
    for (unsigned e = s->p->nlocs; e < g->nevents; e++) {
        const struct event *ev = &g->events[e];
        say(r, "  %-10s %s %s %s", s->p->thread_names[ev->thread], ops[ev->op], s->p->loc_names[ev->loc],
            orders[ev->order]);
        if (ev->reads) {
            const struct event *w = &g->events[ev->from];
            say(r, ", reads %d of %s", ev->read, w->thread < 0 ? "the start" : s->p->thread_names[w->thread]);
        }
        if (ev->writes) say(r, ", writes %d", ev->written);
        say(r, "\n");
    }
    for (unsigned t = 0; t < s->p->nthreads; t++)
        if (!g->threads[t].ended) say(r, "  %-10s waits at instruction %u\n", s->p->thread_names[t], g->threads[t].pc);
    for (unsigned l = 0; l < s->p->nlocs; l++) {
        say(r, "  order of %s:", s->p->loc_names[l]);
        for (int i = 0; i < g->nmo[l]; i++) say(r, " %d", g->events[g->mo[l][i]].written);
        say(r, "\n");
    }
}

/* ---- seen before ------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, uint64_t v) {
    h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
    h ^= h >> 30;
    h *= 0xbf58476d1ce4e5b9ull;
    h ^= h >> 27;
    h *= 0x94d049bb133111ebull;
    return h ^ h >> 31;
}

/* An event's name, whenever it was added. */
static uint64_t name_of(const struct event *ev) {
    return ev->thread < 0 ? 4096 + (uint64_t)ev->loc : ((uint64_t)ev->thread + 1) << 8 | (uint64_t)ev->index;
}

static void hash(const struct graph *g, const struct ex_program *p, uint64_t h[2]) {
    h[0] = 1, h[1] = 2;
    uint64_t from[EX_THREADS][EX_INSTRS] = {0};
    for (unsigned e = p->nlocs; e < g->nevents; e++) {
        const struct event *ev = &g->events[e];
        from[ev->thread][ev->index] = ev->reads ? name_of(&g->events[ev->from]) : 8192;
    }
    for (unsigned t = 0; t < p->nthreads; t++)
        for (unsigned k = 0; k < p->ninstrs[t]; k++)
            for (unsigned i = 0; from[t][k] && i < 2; i++) h[i] = mix(h[i], from[t][k] << 16 | t << 8 | k);
    for (unsigned l = 0; l < p->nlocs; l++)
        for (int k = 0; k < g->nmo[l]; k++)
            for (int i = 0; i < 2; i++) h[i] = mix(h[i], name_of(&g->events[g->mo[l][k]]) + l * 65536);
    if (!h[0] && !h[1]) h[0] = 1;
}

static void insert(struct search *s, const uint64_t h[2]) {
    size_t i = h[0] & (s->capacity - 1);
    while (s->seen[i][0] || s->seen[i][1]) i = (i + 1) & (s->capacity - 1);
    s->seen[i][0] = h[0], s->seen[i][1] = h[1];
    s->nseen++;
}

static void grow(struct search *s) {
    uint64_t(*old)[2] = s->seen;
    size_t n = s->capacity;
    s->capacity = n ? n * 2 : 1024;
    s->seen = calloc(s->capacity, sizeof *s->seen);
    if (!s->seen) too_much("graphs for this machine's memory");
    s->nseen = 0;
    for (size_t i = 0; i < n; i++)
        if (old[i][0] || old[i][1]) insert(s, old[i]);
    free(old);
}

/* True if it is new (EX2). */
static bool is_new(struct search *s, const struct graph *g) {
    uint64_t h[2];
    hash(g, s->p, h);
    if (s->nseen * 2 >= s->capacity) grow(s);
    for (size_t i = h[0] & (s->capacity - 1); s->seen[i][0] || s->seen[i][1]; i = (i + 1) & (s->capacity - 1))
        if (s->seen[i][0] == h[0] && s->seen[i][1] == h[1]) return false;
    insert(s, h);
    return true;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Runs what accesses no memory, up to the next access or the end. What FAIL() says, or NULL. */
static const char *run_local(const struct ex_program *p, struct graph *g, unsigned thread) {
    struct thread *t = &g->threads[thread];
    while (!t->ended) {
        if (t->pc >= p->ninstrs[thread]) {
            t->ended = true;
            break;
        }
        const struct ex_instr *in = &p->code[thread][t->pc];
        switch (t->done >> t->pc & 1 ? EX_SET : in->op) {
        case EX_SET:
            if (t->done >> t->pc & 1) break; /* it came early */
            t->regs[in->reg] = value_of(t, in->value);
            break;
        case EX_PLUS: t->regs[in->reg] += value_of(t, in->value); break;
        case EX_WHEN:
            if (!fits(t->regs[in->reg], in->cmp, value_of(t, in->value))) t->pc += (unsigned)in->skip;
            break;
        case EX_END: t->ended = true; return NULL;
        case EX_FAIL: return in->text;
        default: return NULL;
        }
        t->pc++;
    }
    return NULL;
}

static bool acquires(enum order o) {
    return o == ACQ || o == ARL || o == SEQ;
}
static bool releases(enum order o) {
    return o == REL || o == ARL || o == SEQ;
}

static int rmw_result(enum ex_op op, int old, int value) {
    switch (op) {
    case EX_ADD: return old + value;
    case EX_OR: return old | value;
    case EX_AND: return old & value;
    default: return value;
    }
}

static bool is_raced(const struct graph *g, const struct event *ev) {
    for (unsigned e = 0; e < g->nevents; e++) {
        const struct event *other = &g->events[e];
        if (other->loc != ev->loc || other->thread < 0 || other->thread == ev->thread) continue;
        if (ev->before & bit_of((int)e)) continue;
        if ((other->plain || ev->plain) && (other->writes || ev->writes)) return true;
    }
    return false;
}

static void visit(struct search *s, const struct graph *g);

/* Adds an event to a copy of the graph, its write at `place` in modification order, and goes on from there. */
static void step(struct search *s, const struct graph *from, unsigned thread, struct event ev, int place) {
    struct graph g = *from;
    const struct ex_instr *in = &s->p->code[thread][ev.index];
    int n = (int)g.nevents;
    if (n == EX_EVENTS) too_much("events");
    bool races = is_raced(&g, &ev);
    g.events[g.nevents++] = ev;
    if (ev.writes) {
        int8_t *mo = g.mo[ev.loc];
        memmove(mo + place + 1, mo + place, (size_t)(g.nmo[ev.loc] - place));
        mo[place] = (int8_t)n;
        g.nmo[ev.loc]++;
        struct event *w = &g.events[n];
        w->gives = ev.reads ? g.events[ev.from].gives : 0; /* a release sequence goes on through it */
        if (releases((enum order)ev.order)) w->gives |= ev.before | bit_of(n);
    }
    if (ev.seq && !seq_agrees(&g)) return;
    g.threads[thread].done |= bit_of(ev.index);
    if (ev.reads && in->reg >= 0) g.threads[thread].regs[in->reg] = ev.read;
    const char *wrong = races ? "a data race" : run_local(s->p, &g, thread);
    if (wrong) {
        tell(s, &g, wrong);
        return;
    }
    if (is_new(s, &g)) visit(s, &g);
}

/* All places behind `first` where a write may go: not between a write and the read-modify-write that read it. */
static bool place_is_free(const struct graph *g, int loc, int place) {
    if (place == g->nmo[loc]) return true;
    const struct event *next = &g->events[g->mo[loc][place]];
    return !(next->reads && next->from == g->mo[loc][place - 1]);
}

static void try_store(struct search *s, const struct graph *g, unsigned thread, struct event ev, int first) {
    ev.writes = true;
    for (int place = g->nmo[ev.loc]; place > first && !s->result->wrong; place--)
        if (place_is_free(g, ev.loc, place)) step(s, g, thread, ev, place);
}

/* A read, and the write that goes with it. True if there was a write to read from. */
static bool try_read(struct search *s, const struct graph *g, unsigned thread, struct event ev, int place) {
    const struct thread *t = &g->threads[thread];
    const struct ex_instr *in = &s->p->code[thread][ev.index];
    int from = g->mo[ev.loc][place], value = value_of(t, in->value);
    enum order order = in->order;
    ev.reads = true;
    ev.from = (int8_t)from;
    ev.read = g->events[from].written;
    if (in->op == EX_AWAIT && !fits(ev.read, in->cmp, value)) return false;
    bool taken = in->op != EX_CAS || ev.read == value_of(t, in->expected);
    if (!taken && in->reg < 0) return false; /* a lock that somebody has */
    ev.writes = taken && in->op != EX_LOAD && in->op != EX_AWAIT;
    if (ev.writes && !place_is_free(g, ev.loc, place + 1)) return false;
    if (!taken) order = order == ARL ? ACQ : order == REL ? RLX : order; /* a failed one only loads */
    ev.order = (uint8_t)order;
    ev.seq = order == SEQ;
    ev.written = rmw_result(in->op, ev.read, value);
    if (acquires(order)) ev.before |= g->events[from].gives;
    if (first_place(g, ev.loc, ev.before) > place) return true; /* what it would get to know forbids it */
    step(s, g, thread, ev, place + 1);
    return true;
}

static bool is_access(enum ex_op op) {
    return op <= EX_AWAIT;
}

/* The registers that an instruction reads, and the one that it sets, as bits. */
static unsigned reads_regs(const struct ex_instr *in) {
    unsigned bits = in->value >= EX_REG ? 1u << (in->value - EX_REG) : 0;
    if (in->expected >= EX_REG) bits |= 1u << (in->expected - EX_REG);
    return in->op == EX_WHEN || in->op == EX_PLUS ? bits | 1u << in->reg : bits;
}
static unsigned sets_reg(const struct ex_instr *in) {
    bool sets = in->op == EX_SET || in->op == EX_PLUS || (is_access(in->op) && in->op != EX_STORE && in->reg >= 0);
    return sets ? 1u << in->reg : 0;
}

/* Whether the write of instruction j may come before the accesses from pc to j that are not there yet: it is relaxed or
 * plain, of another location than each of them, none of them is acquire or seq_cst or a wait, and neither its value nor
 * whether it comes at all depends on one. (A load that comes early shows nothing that reading an old value does
 * not, so writes alone are tried.) */
static bool may_come_early(const struct ex_program *p, const struct graph *g, unsigned thread, unsigned j) {
    const struct thread *t = &g->threads[thread];
    const struct ex_instr *last = &p->code[thread][j];
    if (last->order > RLX || last->op == EX_LOAD || last->op == EX_AWAIT || last->op == EX_CAS) return false;
    if (!is_access(last->op) || (t->done >> j & 1)) return false;
    unsigned unknown = 0, used = 0;
    for (unsigned k = t->pc; k < j; k++) {
        const struct ex_instr *in = &p->code[thread][k];
        if (t->done >> k & 1) continue;
        if (in->op == EX_AWAIT || in->op == EX_END || in->op == EX_FAIL) return false;
        if (is_access(in->op) && (acquires(in->order) || in->loc == last->loc || in->op == EX_CAS)) return false;
        if (in->op == EX_WHEN && (reads_regs(in) & unknown)) { /* what comes in either case may, past both */
            if (k + (unsigned)in->skip >= j) return false;
            continue;
        }
        if (in->op == EX_WHEN) {
            if (!fits(t->regs[in->reg], in->cmp, value_of(t, in->value))) k += (unsigned)in->skip;
            if (k >= j) return false;
            continue;
        }
        used |= reads_regs(in);
        unknown |= sets_reg(in);
    }
    return !(reads_regs(last) & unknown) && !(sets_reg(last) & (used | unknown));
}

/* All that can be done with one instruction. False: it waits. */
static bool advance(struct search *s, const struct graph *g, unsigned thread, unsigned index) {
    const struct ex_instr *in = &s->p->code[thread][index];
    struct event ev = {.thread = (int8_t)thread,
                       .index = (int8_t)index,
                       .loc = (int8_t)in->loc,
                       .from = -1,
                       .op = (uint8_t)in->op,
                       .order = (uint8_t)in->order,
                       .plain = in->order == PLAIN,
                       .seq = in->order == SEQ,
                       .written = value_of(&g->threads[thread], in->value),
                       .before = past_of(g, s->p, (int)thread, (int)index)};
    int first = first_place(g, in->loc, ev.before);
    if (in->op == EX_STORE) {
        try_store(s, g, thread, ev, first);
        return true;
    }
    bool any = false;
    for (int place = g->nmo[in->loc] - 1; place >= first && !s->result->wrong; place--)
        any |= try_read(s, g, thread, ev, place);
    return any;
}

static void judge(struct search *s, const struct graph *g, bool stuck) {
    struct ex_outcome o;
    s->result->nexecutions++;
    if (stuck && !s->p->may_stick) {
        tell(s, g, "a thread waits for ever");
        return;
    }
    for (unsigned t = 0; t < s->p->nthreads; t++) {
        memcpy(o.regs[t], g->threads[t].regs, sizeof o.regs[t]);
        o.ended[t] = g->threads[t].ended;
    }
    for (unsigned l = 0; l < s->p->nlocs; l++) o.memory[l] = g->events[g->mo[l][g->nmo[l] - 1]].written;
    const char *wrong = s->judge ? s->judge(&o) : NULL;
    if (wrong) tell(s, g, wrong);
}

static void visit(struct search *s, const struct graph *g) {
    bool moved = false, ended = true;
    s->result->ngraphs++;
    for (unsigned t = 0; t < s->p->nthreads && !s->result->wrong; t++) {
        if (g->threads[t].ended) continue;
        ended = false;
        unsigned pc = g->threads[t].pc;
        moved |= advance(s, g, t, pc);
        for (unsigned j = pc + 1; j < s->p->ninstrs[t] && !s->result->wrong; j++)
            if (may_come_early(s->p, g, t, j)) moved |= advance(s, g, t, j);
    }
    if (!moved && !s->result->wrong) judge(s, g, !ended);
}

struct ex_result ex_explore(const struct ex_program *p, ex_judge judge_fn) {
    static struct ex_result result;
    static struct graph g;
    memset(&result, 0, sizeof result);
    memset(&g, 0, sizeof g);
    struct search s = {.p = p, .judge = judge_fn, .result = &result};
    for (unsigned l = 0; l < p->nlocs; l++) {
        g.events[l] = (struct event){
            .thread = -1, .loc = (int8_t)l, .from = -1, .writes = true, .written = p->initial[l], .order = RLX};
        g.mo[l][g.nmo[l]++] = (int8_t)g.nevents++;
    }
    for (unsigned t = 0; t < p->nthreads && !result.wrong; t++) result.wrong = run_local(p, &g, t);
    grow(&s);
    if (!result.wrong) visit(&s, &g);
    free(s.seen);
    return result;
}
