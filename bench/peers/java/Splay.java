import java.nio.charset.StandardCharsets;

/** Splay, after the benchmark of that name in Octane (bench/work_splay.c). */
final class Splay {
    private static final int NODES = 8000, PAYLOAD_DEPTH = 5, NUMBERS = 10, TEXT_KEY = 15, TEXT_DIGITS = 16;
    private static final byte[] TEXT = bytes("String for key ................ in leaf node");
    private static final byte[] DIGITS = bytes("0123456789abcdef");

    private static final class Payload {
        Payload left, right;
        long[] numbers;
        byte[] text;
    }

    private static final class Node {
        final long key;
        final Payload payload;
        Node left, right;

        Node(long key, Payload payload) {
            this.key = key;
            this.payload = payload;
        }
    }

    private final Work.Random random = new Work.Random();
    private final Node dummy = new Node(0, null);
    private Node root;
    private long nodes;

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.US_ASCII);
    }

    /** Keys are unsigned. */
    private static boolean less(long a, long b) {
        return Long.compareUnsigned(a, b) < 0;
    }

    /** The key's node, or the last one on the way to it, comes to the root. */
    private void splay(long key) {
        Node left = dummy, right = dummy, at = root;
        dummy.left = null;
        dummy.right = null;
        while (key != at.key) {
            if (less(key, at.key)) {
                if (at.left == null) break;
                if (less(key, at.left.key)) {
                    Node next = at.left;
                    at.left = next.right;
                    next.right = at;
                    at = next;
                    if (at.left == null) break;
                }
                right.left = at;
                right = at;
                at = at.left;
            } else {
                if (at.right == null) break;
                if (less(at.right.key, key)) {
                    Node next = at.right;
                    at.right = next.left;
                    next.left = at;
                    at = next;
                    if (at.right == null) break;
                }
                left.right = at;
                left = at;
                at = at.right;
            }
        }
        left.right = at.left;
        right.left = at.right;
        at.left = dummy.right;
        at.right = dummy.left;
        root = at;
    }

    private boolean has(long key) {
        if (root == null) return false;
        splay(key);
        return root.key == key;
    }

    private void insert(long key, Payload payload) {
        Node node = new Node(key, payload);
        nodes++;
        if (root == null) {
            root = node;
            return;
        }
        splay(key);
        if (less(root.key, key)) {
            node.left = root;
            node.right = root.right;
            root.right = null;
        } else {
            node.right = root;
            node.left = root.left;
            root.left = null;
        }
        root = node;
    }

    private void remove(long key) {
        splay(key);
        Node removed = root;
        if (removed.left == null) {
            root = removed.right;
        } else {
            root = removed.left;
            splay(key);
            root.right = removed.right;
        }
        nodes--;
    }

    private long keyBefore(long key) {
        splay(key);
        Node node = root.left;
        if (node == null) return key;
        while (node.right != null) node = node.right;
        return node.key;
    }

    private static byte[] newText(long key) {
        byte[] text = TEXT.clone();
        for (int i = 0; i < TEXT_DIGITS; i++) text[TEXT_KEY + i] = DIGITS[(int) (key >>> 60 - 4 * i) & 15];
        return text;
    }

    private static long[] newNumbers() {
        long[] numbers = new long[NUMBERS];
        for (int i = 0; i < NUMBERS; i++) numbers[i] = i;
        return numbers;
    }

    private static Payload newPayload(int depth, long key) {
        Payload payload = new Payload();
        if (depth == 0) {
            payload.numbers = newNumbers();
            payload.text = newText(key);
        } else {
            payload.left = newPayload(depth - 1, key);
            payload.right = newPayload(depth - 1, key);
        }
        return payload;
    }

    private long insertNew() {
        long key;
        do key = random.next();
        while (has(key));
        insert(key, newPayload(PAYLOAD_DEPTH, key));
        return key;
    }

    private static long payloadSum(Payload payload, long key) {
        if (payload.left != null) return payloadSum(payload.left, key) + payloadSum(payload.right, key);
        long sum = 0, read = 0;
        for (long n : payload.numbers) sum += n;
        for (int i = 0; i < TEXT_DIGITS; i++) read = read * 16 + Character.digit(payload.text[TEXT_KEY + i], 16);
        if (read != key) Peers.damaged("a payload");
        return sum + read;
    }

    private static long treeSum(Node node, long sum) {
        if (node == null) return sum;
        sum = treeSum(node.left, sum);
        sum = sum * 31 + payloadSum(node.payload, node.key);
        return treeSum(node.right, sum);
    }

    static long run(Work w) {
        Splay s = new Splay();
        Probe p = w.probes[0];
        p.start();
        for (long i = w.count == 0 ? NODES : w.count; i > 0; i--) {
            s.insertNew();
            p.op();
        }
        for (long i = 0; i < w.ops; i++) {
            s.remove(s.keyBefore(s.insertNew()));
            p.op();
        }
        return treeSum(s.root, s.nodes);
    }
}
