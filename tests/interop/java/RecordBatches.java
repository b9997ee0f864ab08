import java.io.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;

/**
 * Record batches as kafka-clients writes and reads them.
 *
 * Without input: batches that it builds, one "name hex" a line. With such lines as input: "name verdict" for each,
 * which is all that it finds in the batch.
 */
public class RecordBatches {
    static final long T = 1700000000000L;

    static byte[] utf8(String s) { return s == null ? null : s.getBytes(StandardCharsets.UTF_8); }

    static void put(String name, ByteBuffer b) {
        System.out.println(name + " " + HexFormat.of().formatHex(Arrays.copyOfRange(b.array(), b.arrayOffset() + b.position(), b.arrayOffset() + b.limit())));
    }

    static MemoryRecords build(Compression c, TimestampType tt, long base, long logAppend, long pid, short epoch, int seq,
                               boolean txn, boolean control, int leaderEpoch, long step, Object[][] records) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(1 << 16), RecordBatch.CURRENT_MAGIC_VALUE, c, tt, base,
            logAppend, pid, epoch, seq, txn, control, leaderEpoch);
        long offset = base;
        for (Object[] r : records) {
            b.appendWithOffset(offset, (Long) r[0], utf8((String) r[1]), utf8((String) r[2]), (Header[]) r[3]);
            offset += step;
        }
        return b.build();
    }

    static final Header[] NONE = new Header[0];

    static Object[] r(long t, String k, String v, Header... h) { return new Object[] {t, k, v, h}; }

    static void write() {
        TimestampType create = TimestampType.CREATE_TIME;
        Object[][] plain = {r(T, "k1", "v1"), r(T + 5, null, "v2"), r(T - 70, "k3", null), r(T + 100000, null, null), r(T + 1, "", "")};
        String big = "x".repeat(8200);
        Object[][] rich = {
            r(T, "key", "value", new RecordHeader("a", utf8("1")), new RecordHeader("", utf8("")), new RecordHeader("null", (byte[]) null)),
            r(T, "ключ", "значение", new RecordHeader("заголовок", utf8("да"))),
            r(T + 63, "big", big, new RecordHeader("big", utf8("b".repeat(100)))), r(T + 64, "y".repeat(63), "z".repeat(64)),
        };
        put("plain", build(Compression.NONE, create, 0, -1, -1, (short) -1, -1, false, false, -1, 1, plain).buffer());
        put("rich", build(Compression.NONE, create, 4294967296L, -1, -1, (short) -1, -1, false, false, 7, 1, rich).buffer());
        put("sparse", build(Compression.NONE, create, 100, -1, -1, (short) -1, -1, false, false, 3, 9000, plain).buffer());
        put("idempotent", build(Compression.NONE, create, 0, -1, 4242, (short) 3, 2147483645, false, false, -1, 1, plain).buffer());
        put("transactional", build(Compression.NONE, create, 12, -1, 1L << 40, (short) 32767, 17, true, false, 0, 1, plain).buffer());
        put("log_append_time", build(Compression.NONE, TimestampType.LOG_APPEND_TIME, 5, T + 999, -1, (short) -1, -1, false, false, 1, 1, plain).buffer());
        put("no_timestamp", build(Compression.NONE, create, 5, -1, -1, (short) -1, -1, false, false, -1, 1, new Object[][] {r(-1, "k", "v")}).buffer());
        Compression[] codecs = {Compression.gzip().build(), Compression.snappy().build(), Compression.lz4().build(), Compression.zstd().build(),
            Compression.gzip().level(9).build(), Compression.lz4().level(17).build(), Compression.zstd().level(22).build()};
        String[] names = {"gzip", "snappy", "lz4", "zstd", "gzip_9", "lz4_17", "zstd_22"};
        for (int i = 0; i < codecs.length; i++) put(names[i], build(codecs[i], create, 10, -1, -1, (short) -1, -1, false, false, 2, 1, rich).buffer());
        Object[][] large = new Object[20][];
        for (int i = 0; i < 20; i++) large[i] = r(T + i, "key-" + i, ("value-" + i + " ").repeat(400));
        for (int i = 0; i < 4; i++) put(names[i] + "_large", build(codecs[i], create, 0, -1, -1, (short) -1, -1, false, false, -1, 1, large).buffer());
        put("commit", MemoryRecords.withEndTransactionMarker(77, T, 4, 9000, (short) 2, new EndTransactionMarker(ControlRecordType.COMMIT, 11)).buffer());
        put("abort", MemoryRecords.withEndTransactionMarker(78, T, 4, 9000, (short) 2, new EndTransactionMarker(ControlRecordType.ABORT, -1)).buffer());
        LeaderChangeMessage change = new LeaderChangeMessage().setLeaderId(1).setVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1)));
        put("leader_change", MemoryRecords.withLeaderChangeMessage(3, T, 9, ByteBuffer.allocate(512), change).buffer());
        put("snapshot_header", MemoryRecords.withSnapshotHeaderRecord(0, T, 9, ByteBuffer.allocate(512), new SnapshotHeaderRecord().setLastContainedLogTimestamp(T)).buffer());
        put("kraft_version", MemoryRecords.withKRaftVersionRecord(0, T, 9, ByteBuffer.allocate(512), new KRaftVersionRecord().setKRaftVersion((short) 1)).buffer());
        ByteBuffer empty = ByteBuffer.allocate(61);
        DefaultRecordBatch.writeEmptyHeader(empty, (byte) 2, 4242, (short) 3, 6, 10, 14, 5, create, T, true, false);
        empty.flip();
        put("empty", empty);
    }

    static String text(ByteBuffer b) { return b == null ? "null" : HexFormat.of().formatHex(org.apache.kafka.common.utils.Utils.toArray(b)); }

    static String verdict(byte[] raw) {
        StringBuilder out = new StringBuilder();
        try {
            for (RecordBatch b : MemoryRecords.readableRecords(ByteBuffer.wrap(raw)).batches()) {
                b.ensureValid();
                out.append(b.baseOffset()).append(' ').append(b.lastOffset()).append(' ').append(b.partitionLeaderEpoch()).append(' ')
                    .append(b.compressionType().name).append(' ').append(b.timestampType()).append(' ').append(b.maxTimestamp()).append(' ')
                    .append(b.producerId()).append(' ').append(b.producerEpoch()).append(' ').append(b.baseSequence()).append(' ').append(b.lastSequence()).append(' ')
                    .append(b.isTransactional()).append(' ').append(b.isControlBatch());
                for (org.apache.kafka.common.record.internal.Record r : b) {
                    out.append('|').append(r.offset()).append(' ').append(r.timestamp()).append(' ').append(text(r.key())).append(' ').append(text(r.value()));
                    for (Header h : r.headers()) out.append(' ').append(HexFormat.of().formatHex(utf8(h.key()))).append('=').append(h.value() == null ? "null" : HexFormat.of().formatHex(h.value()));
                }
            }
        } catch (Throwable e) { return "ERROR " + e.getClass().getSimpleName() + " " + e.getMessage(); }
        return out.toString();
    }

    public static void main(String[] args) throws IOException {
        String[] lines = new String(System.in.readAllBytes(), StandardCharsets.US_ASCII).split("\n");
        if (lines[0].isEmpty()) write();
        else for (String line : lines) {
            String[] parts = line.split(" ");
            System.out.println(parts[0] + " " + verdict(HexFormat.of().parseHex(parts[1])));
        }
    }
}
