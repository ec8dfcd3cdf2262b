import java.util.Arrays;

/** A window of messages of 1 KB in a ring; each push replaces the oldest (bench/work_store.c). */
final class Store {
    private static final int MESSAGE_BYTES = 1024;

    static long run(Work w) {
        int window = w.count == 0 ? 200000 : (int) w.count;
        byte[][] ring = new byte[window][];
        Probe p = w.probes[0];
        p.start();
        for (long i = 0; i < w.ops; i++) {
            byte[] message = new byte[MESSAGE_BYTES];
            Arrays.fill(message, (byte) i);
            ring[(int) (i % window)] = message;
            p.op();
        }
        long sum = 0;
        for (long i = Math.max(w.ops - window, 0); i < w.ops; i++) {
            long got = 0;
            for (byte b : ring[(int) (i % window)]) got += b & 0xff;
            if (got != (i & 0xff) * MESSAGE_BYTES) Peers.damaged("a message");
            sum = sum * 31 + got;
        }
        return sum;
    }
}
