import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.util.Map;
import java.util.function.ToLongFunction;

/**
 * The workloads of bench/ in Java: one run in one process, with the arguments and the output of bench/worker.c.
 *
 * <pre>java -XX:+UseZGC -cp CLASSES Peers store --ops=5000000 --count=200000</pre>
 *
 * The same data structures, operations and random numbers as in C, so that the checksums agree. The compiler's warming
 * up is inside the measured time, the machine's start is not.
 */
final class Peers {
    static final Map<String, ToLongFunction<Work>> WORKLOADS = Map.of("store", Store::run, "lru", Lru::run, "trees",
            Trees::run, "gcbench", GcBench::run, "splay", Splay::run);

    static void usage(String why) {
        System.err.println(why + "\nusage: Peers store|lru|trees|gcbench|splay [--ops=N] [--live=BYTES] [--count=N] "
                + "[--depth=N] [--threads=N]");
        System.exit(64);
    }

    static void damaged(String what) {
        System.err.println(what + " is damaged");
        System.exit(1);
    }

    static Work parse(String[] arguments) {
        Work w = new Work();
        for (int i = 1; i < arguments.length; i++) {
            String[] parts = arguments[i].split("=", 2);
            long n = parts.length == 2 ? Long.parseLong(parts[1]) : 0;
            switch (parts[0]) {
                case "--ops" -> w.ops = n;
                case "--live" -> w.live = n;
                case "--count" -> w.count = n;
                case "--depth" -> w.depth = (int) n;
                case "--threads" -> w.threads = (int) n;
                default -> usage("unknown option: " + arguments[i]);
            }
        }
        w.probes = new Probe[w.threads];
        for (int i = 0; i < w.threads; i++) w.probes[i] = new Probe();
        return w;
    }

    public static void main(String[] arguments) {
        if (arguments.length == 0 || !WORKLOADS.containsKey(arguments[0])) usage("no such workload");
        Work w = parse(arguments);
        long start = System.nanoTime();
        long sum = WORKLOADS.get(arguments[0]).applyAsLong(w);
        double seconds = (System.nanoTime() - start) / 1e9;
        Probe all = w.probes[0];
        for (int i = 1; i < w.threads; i++) all.merge(w.probes[i]);
        long collections = 0;
        for (GarbageCollectorMXBean bean : ManagementFactory.getGarbageCollectorMXBeans())
            collections += bean.getCollectionCount();
        System.out.printf("name java%nseconds %.6f%nchecksum %016x%np50_ns %d%np999_ns %d%nworst_ns %d%n"
                + "collections %d%nend%n", seconds, sum, all.percentile(50), all.percentile(99.9), all.worst,
                collections);
    }
}
