import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client, unmodified, in one scenario per argument. A failed expectation ends the program with 1. */
public class StockClient {
    /** A busy machine is no bug. */
    private static final long PATIENCE_MS = 90_000;
    private static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        for (int i = 2; i < args.length; i++) {
            String suffix = args[1];
            switch (args[i]) {
                case "codecs" -> codecs("java-codecs-" + suffix);
                case "fields" -> fields("java-fields-" + suffix);
                case "large" -> large("java-large-" + suffix);
                case "group" -> group("java-group-" + suffix, "java-" + suffix);
                case "transactions" -> transactions("java-txn-" + suffix, "java-txn-" + suffix);
                case "admin" -> admin("java-admin-" + suffix);
                default -> throw new IllegalArgumentException(args[i]);
            }
            System.out.println("{\"passed\": \"" + args[i] + "\"}");
        }
    }

    /** Every codec, idempotent as by default, batches of many records. */
    private static void codecs(String prefix) throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = prefix + "-" + codec;
            create(topic, 1, Map.of());
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("compression.type", codec, "linger.ms", "20"))) {
                for (int i = 0; i < 500; i++)
                    sent.add(producer.send(new ProducerRecord<>(topic, bytes("value " + i + " of some length, again and again"))));
            }
            for (int i = 0; i < 500; i++)
                expect(sent.get(i).get().offset(), (long) i, codec + " offset");
            List<ConsumerRecord<byte[], byte[]>> records = read(topic, 1, 500);
            for (int i = 0; i < 500; i++)
                expect(text(records.get(i).value()), "value " + i + " of some length, again and again", codec);
        }
    }

    /** Transactions of version 2, which add partitions by writing to them: commit, abort, offsets, a twin. */
    private static void transactions(String topic, String id) throws Exception {
        create(topic, 3, Map.of());
        create(topic + "-out", 1, Map.of());
        Map<String, String> settings = Map.of("transactional.id", id, "linger.ms", "1");
        KafkaProducer<byte[], byte[]> producer = producer(settings);
        producer.initTransactions();
        for (int number = 0; number < 30; number++) {
            producer.beginTransaction();
            for (int i = 0; i < 9; i++)
                producer.send(new ProducerRecord<>(topic, i % 3, null, bytes(number + "-" + i)));
            if (number % 3 == 2) {
                producer.flush();
                producer.abortTransaction();
            } else
                producer.commitTransaction();
        }
        Set<String> seen = new HashSet<>();
        for (ConsumerRecord<byte[], byte[]> record : readCommitted(topic, 3, 20 * 9)) {
            String value = text(record.value());
            expect(seen.add(value), true, value + " once");
            expect(Integer.parseInt(value.split("-")[0]) % 3 != 2, true, value + " was committed");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of("group.id", id, "isolation.level", "read_committed"))) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> read = new ArrayList<>();
            for (long end = inTime(); System.currentTimeMillis() < end && read.size() < 20 * 9;)
                consumer.poll(Duration.ofMillis(200)).forEach(read::add);
            expect(read.size(), 20 * 9, "records of a read_committed group");
            Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
            for (TopicPartition part : consumer.assignment())
                positions.put(part, new OffsetAndMetadata(consumer.position(part)));
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic + "-out", bytes("lost")));
            producer.sendOffsetsToTransaction(positions, consumer.groupMetadata());
            producer.abortTransaction();
            expect(consumer.committed(positions.keySet()).values().stream().allMatch(each -> each == null), true, "no offsets");
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic + "-out", bytes("kept")));
            producer.sendOffsetsToTransaction(positions, consumer.groupMetadata());
            producer.commitTransaction();
            expect(consumer.committed(positions.keySet()), positions, "offsets of the transaction");
        }
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(topic + "-out", bytes("zombie"))).get();
        KafkaProducer<byte[], byte[]> twin = producer(settings);
        twin.initTransactions();
        twin.beginTransaction();
        twin.send(new ProducerRecord<>(topic + "-out", bytes("heir")));
        twin.commitTransaction();
        try {
            producer.send(new ProducerRecord<>(topic + "-out", bytes("zombie again"))).get();
            producer.commitTransaction();
            throw new AssertionError("a fenced producer has committed");
        } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
            producer.close(Duration.ZERO);
        } catch (ExecutionException fenced) {
            expect(fenced.getCause() instanceof InvalidProducerEpochException || fenced.getCause() instanceof ProducerFencedException,
                true, "fenced, not " + fenced.getCause());
            producer.close(Duration.ZERO);
        }
        twin.close();
        List<String> out = new ArrayList<>();
        readCommitted(topic + "-out", 1, 2).forEach(record -> out.add(text(record.value())));
        expect(out, List.of("kept", "heir"), "what was committed");
    }

    private static List<ConsumerRecord<byte[], byte[]>> readCommitted(String topic, int partitions, int count) {
        return read(topic, partitions, count, Map.of("isolation.level", "read_committed"));
    }

    /** Keys, tombstones, headers with and without a value, timestamps. */
    private static void fields(String topic) throws Exception {
        create(topic, 1, Map.of("cleanup.policy", "compact"));
        long stamp = System.currentTimeMillis() - 60_000;
        ProducerRecord<byte[], byte[]> first = new ProducerRecord<>(topic, 0, stamp, bytes("k"), bytes("v"));
        first.headers().add("a", bytes("1")).add("null", null).add("a", bytes("2"));
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
            producer.send(first).get();
            producer.send(new ProducerRecord<>(topic, bytes("k"), null)).get();
        }
        List<ConsumerRecord<byte[], byte[]>> records = read(topic, 1, 2);
        ConsumerRecord<byte[], byte[]> record = records.get(0);
        expect(record.timestamp(), stamp, "timestamp");
        expect(record.leaderEpoch().get(), 0, "leader epoch");
        List<String> headers = new ArrayList<>();
        record.headers().forEach(header -> headers.add(header.key() + "=" + text(header.value())));
        expect(headers, List.of("a=1", "null=null", "a=2"), "headers");
        expect(records.get(1).value(), null, "tombstone");
    }

    /** A megabyte goes through, what the topic does not allow is named. */
    private static void large(String topic) throws Exception {
        create(topic, 1, Map.of("max.message.bytes", "1100000"));
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("max.request.size", "5000000"))) {
            producer.send(new ProducerRecord<>(topic, new byte[1_000_000])).get();
            try {
                producer.send(new ProducerRecord<>(topic, new byte[2_000_000])).get();
                throw new AssertionError("a record of 2 MB was accepted");
            } catch (ExecutionException refused) {
                expect(refused.getCause().getClass(), RecordTooLargeException.class, "refusal");
            }
        }
        expect(read(topic, 1, 1).get(0).value().length, 1_000_000, "size");
    }

    /** Two members of each kind of assignor share, one leaves, the other takes over; commits survive. */
    private static void group(String topic, String groupId) throws Exception {
        create(topic, 4, Map.of());
        try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("acks", "all", "retries", "3"))) {
            for (int i = 0; i < 100; i++)
                producer.send(new ProducerRecord<>(topic, i % 4, bytes("k"), bytes(Integer.toString(i))));
        }
        for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            String id = groupId + assignor;
            KafkaConsumer<byte[], byte[]> one = consumer(Map.of("group.id", id, "client.id", "one",
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor));
            KafkaConsumer<byte[], byte[]> two = consumer(Map.of("group.id", id, "client.id", "two",
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor));
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            Set<String> seen = new HashSet<>();
            for (long end = inTime(); System.currentTimeMillis() < end && !(one.assignment().size() == 2 && two.assignment().size() == 2 && seen.size() == 100);) {
                collect(one, seen);
                collect(two, seen);
            }
            expect(one.assignment().size() + two.assignment().size(), 4, assignor + ": shares of two");
            expect(seen.size(), 100, assignor + ": records");
            two.close();
            for (long end = inTime(); System.currentTimeMillis() < end && !(one.assignment().size() == 4 && atEnd(one));)
                collect(one, seen);
            expect(one.assignment().size(), 4, assignor + ": share of one");
            one.commitSync();
            one.close();
            try (Admin admin = admin()) {
                Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(id).partitionsToOffsetAndMetadata().get();
                for (int part = 0; part < 4; part++)
                    expect(offsets.get(new TopicPartition(topic, part)).offset(), 25L, assignor + ": committed");
            }
        }
    }

    private static void collect(KafkaConsumer<byte[], byte[]> consumer, Set<String> seen) {
        consumer.poll(Duration.ofMillis(100)).forEach(record -> seen.add(text(record.value())));
    }

    /** Whether the consumer has read all 25 records of each of its partitions. */
    private static boolean atEnd(KafkaConsumer<byte[], byte[]> consumer) {
        return consumer.assignment().stream().allMatch(part -> consumer.position(part) == 25);
    }

    /** What administrators do. */
    private static void admin(String topic) throws Exception {
        try (Admin admin = admin()) {
            create(topic, 2, Map.of("retention.ms", "60000"));
            try {
                admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
                throw new AssertionError("the topic was created twice");
            } catch (ExecutionException refused) {
                expect(refused.getCause().getClass(), TopicExistsException.class, "refusal");
            }
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            eventually(() -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size() == 3);

            ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(
                new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
                new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
            eventually(() -> {
                var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
                return config.get("cleanup.policy").value().equals("delete,compact") && config.get("retention.ms").isDefault();
            });

            try (KafkaProducer<byte[], byte[]> producer = producer(Map.of())) {
                for (int i = 0; i < 10; i++)
                    producer.send(new ProducerRecord<>(topic, 0, bytes("k" + i), bytes("v"))).get();
            }
            TopicPartition part = new TopicPartition(topic, 0);
            expect(admin.deleteRecords(Map.of(part, RecordsToDelete.beforeOffset(4))).all().get() == null, true, "deleted");
            expect(admin.listOffsets(Map.of(part, OffsetSpec.earliest())).all().get().get(part).offset(), 4L, "log start");
            expect(admin.listOffsets(Map.of(part, OffsetSpec.latest())).all().get().get(part).offset(), 10L, "log end");

            String group = topic + "-group";
            admin.alterConsumerGroupOffsets(group, Map.of(part, new OffsetAndMetadata(7, "by hand"))).all().get();
            expect(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(part).metadata(), "by hand", "metadata");
            ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            expect(described.groupState().toString(), "Empty", "state");
            admin.deleteConsumerGroups(List.of(group)).all().get();

            Map<String, Object> cluster = new TreeMap<>();
            cluster.put("nodes", admin.describeCluster().nodes().get().size());
            cluster.put("features", admin.describeFeatures().featureMetadata().get().finalizedFeatures().containsKey("metadata.version"));
            expect(cluster.toString(), "{features=true, nodes=1}", "cluster");
            admin.deleteTopics(List.of(topic)).all().get();
            eventually(() -> !admin.listTopics().names().get().contains(topic));
        }
    }

    // --- parts ---

    private static long inTime() {
        return System.currentTimeMillis() + PATIENCE_MS;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void eventually(Condition condition) throws Exception {
        long end = inTime();
        while (!condition.holds()) {
            if (System.currentTimeMillis() > end)
                throw new AssertionError("a condition did not come true");
            Thread.sleep(50);
        }
    }

    private static void expect(Object found, Object wanted, String what) {
        if (found == null ? wanted != null : !found.equals(wanted))
            throw new AssertionError(what + ": " + found + " instead of " + wanted);
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] raw) {
        return raw == null ? "null" : new String(raw, StandardCharsets.UTF_8);
    }

    private static Properties properties(Map<String, String> settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.putAll(settings);
        return properties;
    }

    private static Admin admin() {
        return Admin.create(properties(Map.of()));
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        return new KafkaProducer<>(properties(settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Map<String, String> settings) {
        Map<String, String> all = new HashMap<>(Map.of("auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        all.putAll(settings);
        return new KafkaConsumer<>(properties(all), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void create(String topic, int partitions, Map<String, String> configs) throws Exception {
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(configs))).all().get();
            eventually(() -> admin.listTopics().names().get().contains(topic));
        }
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(String topic, int partitions, int count) {
        return read(topic, partitions, count, Map.of());
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(
            String topic, int partitions, int count, Map<String, String> settings) {
        Collection<TopicPartition> parts = new ArrayList<>();
        for (int part = 0; part < partitions; part++)
            parts.add(new TopicPartition(topic, part));
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            consumer.assign(parts);
            consumer.seekToBeginning(parts);
            for (long end = inTime(); System.currentTimeMillis() < end && records.size() < count;)
                consumer.poll(Duration.ofMillis(200)).forEach(records::add);
        }
        expect(records.size(), count, "records of " + topic);
        return records;
    }
}
