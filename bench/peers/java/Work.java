/** What the command line asks for. */
final class Work {
    long ops = 1000000, live = 64 << 20, count;
    int depth = 16, threads = 1;
    Probe[] probes;

    /** xorshift64: the same numbers everywhere. */
    static final class Random {
        private long state = 20261121;

        long next() {
            state ^= state << 13;
            state ^= state >>> 7;
            state ^= state << 17;
            return state;
        }
    }
}
