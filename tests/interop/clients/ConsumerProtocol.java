import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's Java consumer with group.protocol=consumer: arguments are the bootstrap servers, a suffix for names, and the
 * scenarios to run. Prints {"passed": scenario} for each.
 */
public class ConsumerProtocol {
    static final long PATIENCE_MS = 90_000;
    static String servers;
    static String suffix;
    static Admin admin;

    public static void main(String[] args) throws Exception {
        servers = args[0];
        suffix = args[1];
        admin = Admin.create(Map.of("bootstrap.servers", servers));
        for (int i = 2; i < args.length; i++) {
            switch (args[i]) {
                case "sharing": sharing(); break;
                case "pattern": pattern(); break;
                case "statics": statics(); break;
                case "migration": migration(); break;
                case "configs": configs(); break;
                default: throw new IllegalArgumentException(args[i]);
            }
            System.out.println("{\"passed\": \"" + args[i] + "\"}");
        }
        Runtime.getRuntime().halt(0);
    }

    static KafkaConsumer<String, String> consumer(String group, String... more) {
        Properties properties = new Properties();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        properties.put(ConsumerConfig.GROUP_PROTOCOL_CONFIG, "consumer");
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");
        for (int i = 0; i < more.length; i += 2)
            properties.put(more[i], more[i + 1]);
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    static String topic(String name, int partitions) throws Exception {
        String full = name + "-" + suffix;
        admin.createTopics(List.of(new NewTopic(full, partitions, (short) 1))).all().get();
        return full;
    }

    static void until(BooleanSupplier condition, String otherwise) {
        long deadline = System.currentTimeMillis() + PATIENCE_MS;
        while (!condition.getAsBoolean())
            if (System.currentTimeMillis() > deadline)
                throw new AssertionError(otherwise);
    }

    @SafeVarargs
    static boolean share(int total, KafkaConsumer<String, String>... members) {
        Set<TopicPartition> all = new java.util.HashSet<>();
        int sum = 0;
        for (KafkaConsumer<String, String> member : members) {
            member.poll(Duration.ofMillis(50));
            all.addAll(member.assignment());
            sum += member.assignment().size();
            if (member.assignment().isEmpty())
                return false;
        }
        return sum == total && all.size() == total;
    }

    /** Members come, commit, and go; what one committed the next one goes on from. */
    static void sharing() throws Exception {
        String topic = topic("sharing", 6);
        String group = "java-sharing-" + suffix;
        KafkaConsumer<String, String> a = consumer(group);
        KafkaConsumer<String, String> b = consumer(group);
        a.subscribe(List.of(topic));
        until(() -> share(6, a), "one member does not get everything");
        b.subscribe(List.of(topic));
        until(() -> share(6, a, b), "two members do not share");
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(Map.of("bootstrap.servers", servers), new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < 600; i++)
                producer.send(new ProducerRecord<>(topic, i % 6, null, "v" + i));
        }
        Set<String> values = new TreeSet<>();
        until(() -> {
            for (KafkaConsumer<String, String> member : List.of(a, b)) {
                member.poll(Duration.ofMillis(50)).forEach(record -> values.add(record.value()));
                member.commitSync();
            }
            return values.size() == 600;
        }, "not everything is read");
        ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        if (described.type() != GroupType.CONSUMER || described.members().size() != 2)
            throw new AssertionError(described.toString());
        a.close();
        until(() -> share(6, b), "the one who stays does not take over");
        if (!b.poll(Duration.ofMillis(500)).isEmpty())
            throw new AssertionError("what was committed is read again");
        b.close();
    }

    /** A pattern that the server looks up; a topic that comes later belongs to it. */
    static void pattern() throws Exception {
        topic("pattern-one", 2);
        KafkaConsumer<String, String> a = consumer("java-pattern-" + suffix);
        a.subscribe(new SubscriptionPattern("pattern-.*-" + suffix));
        until(() -> share(2, a), "the first topic is not found");
        topic("pattern-two", 3);
        until(() -> share(5, a), "the later topic is not found");
        a.close();
        KafkaConsumer<String, String> bad = consumer("java-bad-" + suffix);
        bad.subscribe(new SubscriptionPattern("["));
        boolean[] refused = {false};
        until(() -> {
            try {
                bad.poll(Duration.ofMillis(100));
            } catch (org.apache.kafka.common.errors.InvalidRegularExpression expected) {
                refused[0] = true;
            }
            return refused[0];
        }, "an expression that is none is not refused");
        bad.close();
    }

    /** A static member that restarts has what it had, and nobody else notices. */
    static void statics() throws Exception {
        String topic = topic("statics", 4);
        String group = "java-statics-" + suffix;
        KafkaConsumer<String, String> a = consumer(group, "group.instance.id", "one");
        KafkaConsumer<String, String> b = consumer(group, "group.instance.id", "two");
        a.subscribe(List.of(topic));
        b.subscribe(List.of(topic));
        until(() -> share(4, a, b), "two members do not share");
        Set<TopicPartition> had = a.assignment();
        Set<TopicPartition> others = b.assignment();
        a.close();
        KafkaConsumer<String, String> again = consumer(group, "group.instance.id", "one");
        again.subscribe(List.of(topic));
        until(() -> share(4, again, b), "the member that is back has nothing");
        if (!again.assignment().equals(had) || !b.assignment().equals(others))
            throw new AssertionError("partitions moved: " + had + " " + again.assignment());
        again.close();
        b.close();
    }

    /** Members change protocol one after the other, and back. */
    static void migration() throws Exception {
        String topic = topic("migration", 6);
        String group = "java-migration-" + suffix;
        String[] classic = {
            "group.protocol", "classic", "heartbeat.interval.ms", "300", "session.timeout.ms", "30000",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"};
        KafkaConsumer<String, String> a = consumer(group, classic);
        KafkaConsumer<String, String> b = consumer(group, classic);
        a.subscribe(List.of(topic));
        b.subscribe(List.of(topic));
        until(() -> share(6, a, b), "two classic members do not share");
        a.close();
        KafkaConsumer<String, String> c = consumer(group);
        c.subscribe(List.of(topic));
        until(() -> share(6, b, c), "a classic and a consumer member do not share");
        ConsumerGroupDescription mixed = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        if (mixed.type() != GroupType.CONSUMER)
            throw new AssertionError(mixed.toString());
        c.close();
        until(() -> share(6, b), "the classic member is not alone");
        ConsumerGroupDescription back = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        if (back.type() != GroupType.CLASSIC)
            throw new AssertionError(back.toString());
        b.close();
    }

    /** A group's own configuration, and its name among what is configured. */
    static void configs() throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, "java-configs-" + suffix);
        ConfigEntry entry = new ConfigEntry("consumer.session.timeout.ms", "7000");
        Collection<AlterConfigOp> set = new ArrayList<>(List.of(new AlterConfigOp(entry, AlterConfigOp.OpType.SET)));
        admin.incrementalAlterConfigs(Map.of(resource, set)).all().get();
        until(() -> {
            try {
                Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
                ConfigEntry found = config.get("consumer.session.timeout.ms");
                return found.value().equals("7000")
                    && found.source() == ConfigEntry.ConfigSource.DYNAMIC_GROUP_CONFIG
                    && admin.listConfigResources(Set.of(ConfigResource.Type.GROUP), new org.apache.kafka.clients.admin.ListConfigResourcesOptions())
                        .all().get().contains(resource);
            } catch (Exception unexpected) {
                throw new AssertionError(unexpected);
            }
        }, "the group's configuration is not there");
    }
}
