/* mode.c - how a heap collects: concurrently, or in one of the ways that came before it, or in slices. The same program
 * runs under each; the simple ones are what the others are compared with.
 *
 *   stop         (as Go 1.1) every thread stands at a safepoint from before H1 until the sweep is over
 *   stop-mark    (as Go 1.3) until H6 is answered; the sweep runs beside the threads
 *   insertion    (as Go 1.5) marking runs beside the threads, whose barrier shades what is stored and not what is
 *                overwritten; their stacks stay grey, and are scanned again in a stop
 *   concurrent   (as Go 1.8) the default: no step stops all threads
 *   incremental  the same protocol in slices on the program's threads (step.c)
 *
 * In a stop each step of the cycle is posted as always and answered at once, by who runs the cycle, for every thread:
 * one marker, one sweep and one order of death serve all modes (handshake.c, look). With no thread running between H1
 * and H6 nothing is written, so a graph that is marked to its end is all that can be reached.
 *
 * insertion: from H2 on every reference that is stored is shaded, so what a scanned object names is grey or marked, but
 * in two places that are written without a barrier. Stacks: they stay grey, and the stop scans them again. Objects that
 * were allocated black: their first stores are tri_init's (R18); the spans that such holes lie in carry a flag, and the
 * stop scans what is marked in them again. After that, and tracing to its end, nothing white can be reached, and nobody
 * has run since. The model has it: M-RESCAN.
 *
 * A mode changes between two cycles, under the cycle lock. Invariants: I-MODE1 the mode of a cycle does not change.
 * I-MODE2 a stop that a cycle began it ends: none is left behind. Lock ranks: cycle (10); threads, roots in turn. */
#include "gc/mode.h"
#include <string.h>
#include "alloc/base/check.h"
#include "gc/error.h"
#include "gc/heap.h"

static const char *const mode_names[NUM_MODES] = {"concurrent", "insertion", "stop-mark", "stop", "incremental"};

enum mode tri__mode(const tri_heap *heap) {
    return (enum mode)atomic_load_relaxed(&heap->mode); /* ordered by the cycle's first step, where that matters */
}

/* No cycle, no request, nobody at work. Requires the cycle lock. */
static bool is_at_rest(const tri_heap *heap) {
    return !heap->wanted && !heap->jobs && heap->started == heap->finished && !heap->handed_over &&
           heap->runner == RUNNER_NONE && !heap->turn_taken && heap->nturns == 0;
}

int tri__mode_set(tri_heap *heap, const char *name) {
    uint32_t mode = 0;
    while (mode < NUM_MODES && strcmp(name, mode_names[mode]) != 0) mode++;
    if (mode == NUM_MODES)
        return tri__error(TRI_EINVAL, "tri_heap_set",
                          "mode is concurrent, insertion, stop-mark, stop or incremental, not %s", name);
    tri__lock_acquire(&heap->cycle_lock);
    bool rests = is_at_rest(heap);
    if (rests) { /* I-MODE1 */
        atomic_store_relaxed(&heap->mode, mode);
        atomic_store_relaxed(&heap->stepped, heap->threadless || mode == MODE_INCREMENTAL);
        atomic_store_relaxed(&heap->here_trigger_bytes, SIZE_MAX);
    }
    tri__lock_release(&heap->cycle_lock);
    return rests ? TRI_OK : tri__error(TRI_EBUSY, "tri_heap_set", "the mode changes between two cycles; try it again");
}

/* ---- stops ------------------------------------------------------------------------------------------------------- */

static bool stops(enum mode mode) {
    return mode == MODE_STOP || mode == MODE_STOP_MARK;
}

bool tri__mode_begin(tri_heap *heap) {
    struct cycle_run *run = &heap->run;
    if (!run->stopped && stops(tri__mode(heap))) run->stopped = tri__world_stop(heap);
    return run->stopped || !stops(tri__mode(heap));
}

static void go_on(tri_heap *heap) {
    if (!heap->run.stopped) return;
    heap->run.stopped = false;
    tri__world_start(heap);
}

void tri__mode_retired(tri_heap *heap) {
    if (tri__mode(heap) == MODE_STOP_MARK) go_on(heap);
}

void tri__mode_swept(tri_heap *heap) {
    go_on(heap);
    check_cheap(!heap->run.stopped, "I-MODE2: a stop that a cycle began it ends");
}

/* ---- the second scan --------------------------------------------------------------------------------------------- */

/* What every thread's buffer and stack name becomes grey. The world is stopped. */
static void scan_again(tri_heap *heap) {
    for (struct mutator *m = heap->threads; m; m = m->next) { /* none attaches or leaves */
        tri__barrier_flush(m);
        if (!heap_fault(heap, FAULT_NO_RESCAN)) tri__mutator_scan_roots(m);
        tri__mutator_stacks_scanned(m);
        m->grey_stack = false;
        tri__marker_hand_over(&m->marker);
        m->marker.worked = false;
    }
    tri__lock_acquire(&heap->roots.lock);
    tri__vmstacks_scan_begin(heap);
    tri__lock_release(&heap->roots.lock);
    tri__vmstacks_scan_suspended(heap, &heap->worker, UINT64_MAX);
}

bool tri__mode_closes(tri_heap *heap) {
    if (tri__mode(heap) != MODE_INSERTION) return tri__cycle_close(heap);
    if (!tri__world_stop(heap)) return false; /* a silent thread: the event hook was told */
    scan_again(heap);                         /* model: M-RESCAN */
    bool fresh = !heap_fault(heap, FAULT_FRESH_BLACK);
    tri__marker_rescan(&heap->worker, fresh ? SPAN_RESCAN_LOST | SPAN_RESCAN_FRESH : SPAN_RESCAN_LOST);
    tri__cycle_mark(heap);
    bool closes = tri__cycle_close(heap);
    check_cheap(closes, "R5: nothing spoils a round while nobody runs");
    tri__world_start(heap);
    return closes;
}
