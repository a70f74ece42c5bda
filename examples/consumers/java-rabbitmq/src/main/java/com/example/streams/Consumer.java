package com.example.streams;

import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;

/** Keeps the state of every stream, as Forebay's RabbitMQ queues tell it, in SQLite, and prints what changes. */
public final class Consumer {
    private static final String USAGE = "--amqp URI --queue NAME [--queue NAME...] --db FILE, or --vectors FILE";
    /** Messages of a queue that may be on their way to us. */
    private static final int PREFETCH_COUNT = 500;
    /** Messages that share a transaction, and so an fsync. */
    private static final int BATCH_MESSAGES_MAX = 500;
    private static final int RECONNECT_SECONDS_MAX = 30;

    private static volatile boolean isStopping;

    private Consumer() {}

    public static void main(String[] arguments) throws Exception {
        CommandLine options = new CommandLine(USAGE, arguments);
        if (options.has("--vectors")) {
            System.out.println(Vectors.check(options.one("--vectors")));
            return;
        }
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(options.one("--amqp"));
        // A new connection gets new delivery tags, so what is at hand is dropped with the old one: the loop below does that.
        factory.setAutomaticRecoveryEnabled(false);
        List<String> queues = options.all("--queue");
        try (Store store = new Store(options.one("--db"))) {
            stopAtSignal();
            int seconds = 1;
            while (!isStopping) {
                try (Connection connection = factory.newConnection("streams")) {
                    seconds = 1;
                    consume(connection, queues, store);
                } catch (IOException | TimeoutException | ShutdownSignalException error) {
                    // What was not acknowledged is delivered again, and changes nothing.
                    System.err.printf("RabbitMQ: %s; again in %d s%n", reason(error), seconds);
                    pause(seconds);
                    seconds = Math.min(2 * seconds, RECONNECT_SECONDS_MAX);
                }
            }
        }
    }

    /** Reads the queues until the connection fails or the process is told to stop. */
    private static void consume(Connection connection, List<String> queues, Store store) throws Exception {
        BlockingQueue<Delivery> arrived = new LinkedBlockingQueue<>();
        AtomicReference<String> cancelled = new AtomicReference<>();
        Channel channel = connection.createChannel();
        channel.basicQos(PREFETCH_COUNT);
        for (String queue : queues) {
            // Not exclusive: of several instances the queue's single active consumer reads, and the next one takes over from it.
            channel.basicConsume(queue, false, (tag, delivery) -> arrived.add(delivery), tag -> cancelled.set(queue));
        }
        while (!isStopping) {
            Delivery first = arrived.poll(1, TimeUnit.SECONDS);
            if (first != null) {
                List<Delivery> batch = new ArrayList<>(List.of(first));
                arrived.drainTo(batch, BATCH_MESSAGES_MAX - 1);
                // The order matters: stored, then told, then acknowledged, together with all that came before on this channel.
                Store.tell(store.apply(events(batch)));
                channel.basicAck(batch.get(batch.size() - 1).getEnvelope().getDeliveryTag(), true);
            }
            if (!channel.isOpen()) {
                throw channel.getCloseReason();
            }
            if (cancelled.get() != null) {
                throw new IOException("the broker cancelled the consumer of " + cancelled + ": it is gone, or moved");
            }
        }
    }

    private static List<Event> events(List<Delivery> batch) {
        List<Event> events = new ArrayList<>();
        for (Delivery delivery : batch) {
            Event.read(delivery.getBody()).ifPresentOrElse(events::add, () -> System.err.printf(
                    "skipped message %s: not a structured event%n", delivery.getEnvelope().getRoutingKey()));
        }
        return events;
    }

    private static String reason(Exception error) {
        return error.getMessage() != null || error.getCause() == null ? error.toString() : error.getCause().toString();
    }

    private static void pause(int seconds) throws InterruptedException {
        for (int i = 0; i < seconds && !isStopping; i++) {
            Thread.sleep(1000);
        }
    }

    /** At SIGTERM and SIGINT the batch at hand is finished, and the connection closed in good order. */
    private static void stopAtSignal() {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            isStopping = true;
            try {
                main.join();
            } catch (InterruptedException impatient) {
                Thread.currentThread().interrupt();
            }
        }));
    }
}
