package com.example.streams;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Keeps the state of every stream, as Forebay's Kafka topic tells it, in SQLite, and prints what changes. */
public final class Consumer {
    private static final String USAGE = "--brokers LIST --topic NAME --group ID --db FILE, or --vectors FILE";
    /** Records that share a transaction, and so an fsync. */
    private static final int BATCH_RECORDS_MAX = 500;

    private Consumer() {}

    public static void main(String[] arguments) throws Exception {
        CommandLine options = new CommandLine(USAGE, arguments);
        if (options.has("--vectors")) {
            System.out.println(Vectors.check(options.one("--vectors")));
            return;
        }
        String topic = options.one("--topic");
        Properties properties = properties(options.one("--brokers"), options.one("--group"));
        try (Store store = new Store(options.one("--db"));
                KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties)) {
            stopAtSignal(consumer);
            consumer.subscribe(List.of(topic));
            while (true) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(1));
                if (!records.isEmpty()) {
                    // The order matters: stored, then told, then committed.
                    Store.tell(store.apply(events(records)));
                    commit(consumer);
                }
            }
        } catch (WakeupException stop) {
            System.err.println("stopped");
        }
    }

    private static Properties properties(String brokers, String group) {
        Properties properties = new Properties();
        properties.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        properties.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        properties.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        properties.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        properties.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        properties.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        properties.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, BATCH_RECORDS_MAX);
        // Who joins or leaves takes only the partitions that move; the others are read on.
        properties.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, CooperativeStickyAssignor.class.getName());
        // The partitions of an instance that was killed go to the next one after this long.
        properties.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, 10_000);
        return properties;
    }

    private static List<Event> events(ConsumerRecords<byte[], byte[]> records) {
        List<Event> events = new ArrayList<>();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            Event.read(record.value()).ifPresentOrElse(events::add, () -> System.err.printf(
                    "skipped %s[%d]@%d: not a structured event%n", record.topic(), record.partition(), record.offset()));
        }
        return events;
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
        } catch (CommitFailedException | RebalanceInProgressException error) {
            // What is not committed comes again, here or elsewhere, and changes nothing.
            System.err.println("not committed: " + error.getMessage());
        }
    }

    /** At SIGTERM and SIGINT the batch at hand is finished, and the group is left in good order. */
    private static void stopAtSignal(KafkaConsumer<byte[], byte[]> consumer) {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join();
            } catch (InterruptedException impatient) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
