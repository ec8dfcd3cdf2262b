/** GCBench, as Ellis, Kovac and Boehm have it (bench/work_gcbench.c). */
final class GcBench {
    private static final int ARRAY_DOUBLES = 500000;

    private static final class Node {
        Node left, right;
        int i, j;

        Node(Probe p, Node left, Node right) {
            this.left = left;
            this.right = right;
            p.step();
        }
    }

    private static void populate(Probe p, int depth, Node n) {
        if (depth == 0) return;
        n.left = new Node(p, null, null);
        n.right = new Node(p, null, null);
        populate(p, depth - 1, n.left);
        populate(p, depth - 1, n.right);
    }

    private static Node makeTree(Probe p, int depth) {
        if (depth == 0) return new Node(p, null, null);
        return new Node(p, makeTree(p, depth - 1), makeTree(p, depth - 1));
    }

    private static long treeSize(int depth) {
        return (2L << depth) - 1;
    }

    private static long count(Node n) {
        return n == null ? 0 : 1 + count(n.left) + count(n.right);
    }

    private static long buildTrees(Probe p, int depth, long ntrees) {
        for (long i = 0; i < ntrees; i++) populate(p, depth, new Node(p, null, null));
        for (long i = 0; i < ntrees; i++) makeTree(p, depth);
        return ntrees;
    }

    static long run(Work w) {
        Probe p = w.probes[0];
        int longest = Math.max(w.depth - 2, 1);
        long sum = 0;
        p.start();
        makeTree(p, w.depth);
        Node longLived = new Node(p, null, null);
        populate(p, longest, longLived);
        double[] array = new double[ARRAY_DOUBLES];
        for (int i = 1; i < ARRAY_DOUBLES / 2; i++) array[i] = 1.0 / i;
        for (int depth = Trees.MIN_DEPTH; depth <= longest; depth += 2)
            sum = sum * 31 + buildTrees(p, depth, 2 * treeSize(w.depth) / treeSize(depth));
        if (array[1000] != 1.0 / 1000) Peers.damaged("the array");
        return sum * 31 + count(longLived);
    }
}
