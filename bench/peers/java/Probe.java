/** What a thread felt: the time between two of its operations, in the buckets of bench/hdr.h. One thread each. */
final class Probe {
    private static final int SUB_LOG2 = 11, SUB = 1 << SUB_LOG2, HALF = SUB / 2, TOP_LOG2 = 40;
    private static final int STEP_OPS = 64;

    private final long[] counts = new long[SUB + (TOP_LOG2 - SUB_LOG2) * HALF];
    private long last, steps, total;
    long worst;

    private static int index(long v) {
        if (v < SUB) return (int) v;
        int shift = 64 - Long.numberOfLeadingZeros(v) - SUB_LOG2;
        return SUB + (shift - 1) * HALF + (int) (v >> shift) - HALF;
    }

    private static long highest(int index) {
        if (index < SUB) return index;
        int shift = (index - SUB) / HALF + 1;
        return ((long) ((index - SUB) % HALF + HALF + 1) << shift) - 1;
    }

    void start() {
        last = System.nanoTime();
    }

    void op() {
        long now = System.nanoTime(), ns = now - last;
        last = now;
        counts[index(Math.min(ns, (1L << TOP_LOG2) - 1))]++;
        total++;
        if (ns > worst) worst = ns;
    }

    /** Operations too short to be timed one by one: each 64th is. */
    void step() {
        if (++steps % STEP_OPS == 0) op();
    }

    void merge(Probe from) {
        for (int i = 0; i < counts.length; i++) counts[i] += from.counts[i];
        total += from.total;
        worst = Math.max(worst, from.worst);
    }

    long percentile(double percent) {
        double wanted = percent / 100 * total;
        long below = 0;
        for (int i = 0; i < counts.length; i++) {
            below += counts[i];
            if (below > 0 && below >= wanted) return Math.min(highest(i), worst);
        }
        return worst;
    }
}
