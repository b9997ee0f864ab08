import java.time.Duration;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactions, one after the other, each a record to every partition. Prints what became of each: "committed 7",
 * "aborted 8", "unknown 9". Every fifth is aborted on purpose. Ends when its standard input does.
 *
 * <p>Arguments: bootstrap, topic, partitions, transactional id.
 */
public class TransactionalClient {
    public static void main(String[] args) throws Exception {
        int partitions = Integer.parseInt(args[2]);
        KafkaProducer<String, String> producer = producer(args);
        for (int number = 1; System.in.available() == 0; number++) {
            boolean abort = number % 5 == 0;
            boolean ending = false;
            try {
                producer.beginTransaction();
                for (int partition = 0; partition < partitions; partition++) {
                    producer.send(new ProducerRecord<>(args[1], partition, null, String.valueOf(number)));
                }
                ending = !abort;
                if (abort) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    commit(producer);
                }
                say(abort ? "aborted" : "committed", number, null);
            } catch (KafkaException error) {
                boolean fenced = error instanceof ProducerFencedException;
                boolean over = !fenced && abort(producer);
                // A commit that failed may yet have been decided.
                say(over || !ending ? "aborted" : "unknown", number, error);
                if (!over) {
                    producer.close(Duration.ZERO);
                    producer = producer(args);
                }
            }
        }
        producer.close();
    }

    private static KafkaProducer<String, String> producer(String[] args) {
        KafkaProducer<String, String> producer = new KafkaProducer<>(
            Map.of(
                "bootstrap.servers", args[0],
                "transactional.id", args[3],
                "transaction.timeout.ms", 15000,
                "max.block.ms", 60000,
                "linger.ms", 0),
            new StringSerializer(),
            new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    /** A commit that timed out may be asked for again. */
    private static void commit(KafkaProducer<String, String> producer) {
        while (true) {
            try {
                producer.commitTransaction();
                return;
            } catch (TimeoutException again) {
                System.err.println(again);
            }
        }
    }

    /** False if the producer is of no more use. */
    private static boolean abort(KafkaProducer<String, String> producer) {
        try {
            producer.abortTransaction();
            return true;
        } catch (KafkaException error) {
            System.err.println(error);
            return false;
        }
    }

    private static void say(String what, int number, Exception error) {
        System.out.println(what + " " + number + (error == null ? "" : " " + error));
        System.out.flush();
    }
}
