import java.util.Arrays;

/** A cache with a hash table and a list in order of use, held at a size in bytes (bench/work_lru.c). */
final class Lru {
    private static final int PAYLOAD_MIN = 32, PAYLOAD_MAX = 1024, PAYLOAD_MEAN = (PAYLOAD_MIN + PAYLOAD_MAX) / 2;
    private static final int ENTRY_BYTES = 48; // as the cache counts them, in every language

    private static final class Entry {
        long key, size;
        Entry chain, prev, next;
        byte[] payload;
    }

    private final Work.Random random = new Work.Random();
    private final Entry[] buckets;
    private final Entry ring = new Entry(); // its next is the newest, its prev the oldest
    private final long limit;
    private long used, entries, sum;

    private Lru(long limit, int nbuckets) {
        this.limit = limit;
        buckets = new Entry[nbuckets];
        ring.prev = ring;
        ring.next = ring;
    }

    private static long hash(long key) {
        key *= 0x9e3779b97f4a7c15L;
        return key ^ key >>> 32;
    }

    private int bucketOf(long key) {
        return (int) (hash(key) & buckets.length - 1);
    }

    private Entry lookup(long key) {
        Entry e = buckets[bucketOf(key)];
        while (e != null && e.key != key) e = e.chain;
        return e;
    }

    private static void remove(Entry e) {
        e.prev.next = e.next;
        e.next.prev = e.prev;
    }

    private void insertNewest(Entry e) {
        Entry newest = ring.next;
        e.prev = ring;
        e.next = newest;
        newest.prev = e;
        ring.next = e;
    }

    private void chainRemove(Entry e) {
        int bucket = bucketOf(e.key);
        Entry before = buckets[bucket];
        if (before == e) {
            buckets[bucket] = e.chain;
            return;
        }
        while (before.chain != e) before = before.chain;
        before.chain = e.chain;
    }

    private void evictToLimit() {
        while (used > limit) {
            Entry oldest = ring.prev;
            remove(oldest);
            chainRemove(oldest);
            used -= ENTRY_BYTES + oldest.size;
            entries--;
        }
    }

    private byte[] newPayload(long key) {
        long more = Long.remainderUnsigned(random.next(), PAYLOAD_MAX - PAYLOAD_MIN + 1);
        byte[] payload = new byte[PAYLOAD_MIN + (int) more];
        Arrays.fill(payload, (byte) hash(key));
        return payload;
    }

    private void insert(long key) {
        Entry e = new Entry();
        int bucket = bucketOf(key);
        e.key = key;
        e.payload = newPayload(key);
        e.size = e.payload.length;
        e.chain = buckets[bucket];
        buckets[bucket] = e;
        insertNewest(e);
        used += ENTRY_BYTES + e.size;
        entries++;
        evictToLimit();
    }

    private void touch(Entry e) {
        if (ring.next == e) return;
        remove(e);
        insertNewest(e);
    }

    private void get(long key) {
        Entry e = lookup(key);
        if (e == null) {
            insert(key);
            return;
        }
        byte want = (byte) hash(key);
        int size = (int) e.size;
        if (e.payload[0] != want || e.payload[size / 2] != want || e.payload[size - 1] != want)
            Peers.damaged("a payload");
        sum += size;
        touch(e);
    }

    private void put(long key) {
        Entry e = lookup(key);
        if (e == null) {
            insert(key);
            return;
        }
        byte[] payload = newPayload(key);
        used += payload.length - e.size;
        e.size = payload.length;
        e.payload = payload;
        touch(e);
        evictToLimit();
    }

    static long run(Work w) {
        long expected = w.live / (ENTRY_BYTES + PAYLOAD_MEAN), keys = expected + expected / 4;
        int nbuckets = 1024;
        while (nbuckets < expected) nbuckets *= 2;
        Lru c = new Lru(w.live, nbuckets);
        Probe p = w.probes[0];
        p.start();
        for (long key = 0; key < expected; key++) {
            c.insert(key);
            p.op();
        }
        for (long i = 0; i < w.ops; i++) {
            long r = c.random.next(), key = (r >>> 8) % keys;
            if (Long.remainderUnsigned(r, 10) < 7)
                c.get(key);
            else
                c.put(key);
            p.op();
        }
        return c.sum * 31 + c.entries;
    }
}
