/** Short-lived binary trees of depths 4, 6, .. beside a long-lived one (bench/work_trees.c). */
final class Trees {
    static final int MIN_DEPTH = 4;

    private record Node(Node left, Node right) {}

    private static Node build(Probe p, int depth) {
        p.step();
        return depth == 0 ? new Node(null, null) : new Node(build(p, depth - 1), build(p, depth - 1));
    }

    private static long count(Probe p, Node n) {
        p.step();
        return n.left == null ? 1 : 1 + count(p, n.left) + count(p, n.right);
    }

    private static long treesOf(Work w, int index) {
        Probe p = w.probes[index];
        p.start();
        long sum = count(p, build(p, w.depth + 1));
        Node longLived = build(p, w.depth);
        for (int depth = MIN_DEPTH; depth <= w.depth; depth += 2)
            for (long i = index; i < 1L << w.depth - depth + MIN_DEPTH; i += w.threads)
                sum += count(p, build(p, depth));
        return sum + count(p, longLived);
    }

    static long run(Work w) {
        long[] sums = new long[w.threads];
        Thread[] threads = new Thread[w.threads];
        for (int i = 0; i < w.threads; i++) {
            int index = i;
            threads[i] = new Thread(() -> sums[index] = treesOf(w, index));
            threads[i].start();
        }
        long sum = 0;
        for (int i = 0; i < w.threads; i++) {
            try {
                threads[i].join();
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
            sum += sums[i];
        }
        return sum;
    }
}
