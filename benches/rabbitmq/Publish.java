import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Publishes with asynchronous confirms, one channel for each partition, and prints what was confirmed as a line of JSON.
 * Arguments: URI EXCHANGE SAMPLES PARTITIONS IN_FLIGHT WARM_UP_SECONDS SECONDS.
 */
public class Publish {
    private record Sample(int partition, String routingKey, String key, String id, byte[] body) {
        static Sample of(String line) {
            String[] fields = line.split("\t");
            byte[] body = fields[4].getBytes(StandardCharsets.UTF_8);
            return new Sample(Integer.parseInt(fields[0]), fields[1], fields[2], fields[3], body);
        }
    }

    private static final String ZEROS = "0".repeat(20);
    private static final long SILENCE_SECONDS_MAX = 30;

    private final AtomicLong confirmed = new AtomicLong();
    private final AtomicReference<String> failure = new AtomicReference<>();
    private final Semaphore room;
    private final Channel[] channels;
    /** By channel, what is not confirmed: to be published again when it is refused. */
    private final ConcurrentNavigableMap<Long, Sample>[] outstanding;

    public static void main(String[] arguments) throws Exception {
        List<Sample> samples = Files.readAllLines(Path.of(arguments[2])).stream().map(Sample::of).toList();
        int inFlight = Integer.parseInt(arguments[4]);
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(arguments[0]);
        factory.setAutomaticRecoveryEnabled(false);
        try (Connection connection = factory.newConnection()) {
            Publish publish = new Publish(connection, Integer.parseInt(arguments[3]), inFlight);
            publish.run(arguments[1], samples, inFlight, Long.parseLong(arguments[5]), Long.parseLong(arguments[6]));
        }
    }

    @SuppressWarnings("unchecked")
    private Publish(Connection connection, int partitions, int inFlight) throws IOException {
        room = new Semaphore(inFlight);
        channels = new Channel[partitions];
        outstanding = new ConcurrentNavigableMap[partitions];
        for (int partition = 0; partition < partitions; partition++) {
            Channel channel = connection.createChannel();
            ConcurrentNavigableMap<Long, Sample> sent = new ConcurrentSkipListMap<>();
            channel.confirmSelect();
            channel.addConfirmListener(
                (tag, multiple) -> settle(sent, tag, multiple),
                (tag, multiple) -> failure.set("a queue refused a message"));
            channel.addReturnListener(returned -> failure.set("no queue took a message"));
            channels[partition] = channel;
            outstanding[partition] = sent;
        }
    }

    private void settle(ConcurrentNavigableMap<Long, Sample> sent, long tag, boolean multiple) {
        int count = 0;
        if (multiple) {
            while (!sent.isEmpty() && sent.firstKey() <= tag) {
                sent.pollFirstEntry();
                count++;
            }
        } else if (sent.remove(tag) != null) {
            count = 1;
        }
        confirmed.addAndGet(count);
        room.release(count);
    }

    private void run(String exchange, List<Sample> samples, int inFlight, long warmUp, long seconds) throws Exception {
        long started = System.nanoTime();
        long measuredFrom = started + TimeUnit.SECONDS.toNanos(warmUp);
        long end = measuredFrom + TimeUnit.SECONDS.toNanos(seconds);
        long before = -1;
        long cpuBefore = 0;
        long sequence = 0;
        while (System.nanoTime() < end) {
            if (before < 0 && System.nanoTime() >= measuredFrom) {
                measuredFrom = System.nanoTime();
                before = confirmed.get();
                cpuBefore = cpuNanos();
            }
            take(1);
            publish(exchange, samples.get((int) (sequence % samples.size())), ++sequence);
        }
        long during = confirmed.get() - before;
        double took = (System.nanoTime() - measuredFrom) / 1e9;
        double cpu = (cpuNanos() - cpuBefore) / 1e9;
        take(inFlight);
        System.out.printf(
            "{\"during\":%d,\"seconds\":%f,\"cpu_seconds\":%f,\"confirmed\":%d,\"published\":%d}%n",
            during, took, cpu, confirmed.get(), sequence);
    }

    private void take(int permits) throws Exception {
        boolean taken = room.tryAcquire(permits, SILENCE_SECONDS_MAX, TimeUnit.SECONDS);
        if (failure.get() != null || !taken) {
            throw new IllegalStateException(failure.get() == null ? "no confirmation" : failure.get());
        }
    }

    private void publish(String exchange, Sample sample, long sequence) throws IOException {
        Channel channel = channels[sample.partition()];
        String digits = Long.toString(sequence);
        Map<String, Object> headers = new LinkedHashMap<>();
        headers.put("sequence", ZEROS.substring(digits.length()) + digits);
        headers.put("replica", "bench-0");
        headers.put("partitionkey", sample.key());
        AMQP.BasicProperties properties = new AMQP.BasicProperties.Builder()
            .contentType("application/cloudevents+json; charset=UTF-8")
            .headers(headers)
            .deliveryMode(2)
            .messageId(sample.id())
            .timestamp(new Date())
            .build();
        outstanding[sample.partition()].put(channel.getNextPublishSeqNo(), sample);
        channel.basicPublish(exchange, sample.routingKey(), true, properties, sample.body());
    }

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }
}
