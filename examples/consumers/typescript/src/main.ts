import { parseArgs } from "node:util";

import { Kafka, logLevel, type Consumer, type EachBatchPayload } from "kafkajs";

import { parseEvent, type StreamEvent } from "./event.js";
import { Store } from "./store.js";
import { checkVectors } from "./vectors.js";

const { values: options } = parseArgs({
  options: {
    brokers: { type: "string", default: "localhost:9092" },
    topic: { type: "string", default: "millicast.events" },
    group: { type: "string", default: "streams" },
    db: { type: "string", default: "streams.db" },
    vectors: { type: "string" },
  },
});

if (options.vectors !== undefined) {
  try {
    console.log(`ok ${checkVectors(options.vectors)}`);
  } catch (error) {
    fail(error);
  }
} else {
  await consume().catch(fail);
}

/** Keeps the state of every stream in SQLite, and prints what changes, until SIGTERM or SIGINT. */
async function consume(): Promise<void> {
  const store = new Store(options.db);
  // From the level of warnings on, the client logs to stderr; stdout is for transitions.
  const kafka = new Kafka({ clientId: "streams", brokers: options.brokers.split(","), logLevel: logLevel.WARN });
  // The session's time is how soon the partitions of a consumer that was killed go to another.
  const consumer = kafka.consumer({ groupId: options.group, sessionTimeout: 10_000, heartbeatInterval: 2_000 });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    // With `restart` the client has a failure that it gets over by itself.
    if (!payload.restart) fail(payload.error);
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // A second signal ends the process at once.
    process.once(signal, () => {
      consumer
        .disconnect()
        .then(() => store.close())
        .catch(fail);
    });
  }

  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  await consumer.run({
    // Offsets are committed by hand, after the transaction.
    autoCommit: false,
    eachBatch: (payload) => processBatch(consumer, store, payload),
  });
}

/**
 * Stores what the records of a partition change, tells it, and only then commits their offset. After a crash in between they come
 * again, and change nothing. A commit that fails because the partition has another consumer by now is thrown, and the client joins
 * the group again.
 */
async function processBatch(consumer: Consumer, store: Store, { batch, isRunning, isStale }: EachBatchPayload): Promise<void> {
  if (!isRunning() || isStale()) return;
  const { topic, partition } = batch;
  const events: StreamEvent[] = [];
  for (const { offset, value } of batch.messages) {
    try {
      events.push(parseEvent(value?.toString() ?? ""));
    } catch (error) {
      console.error(`skipped ${topic}[${partition}]@${offset}: ${String(error)}`);
    }
  }
  for (const transition of store.apply(events)) console.log(JSON.stringify(transition));
  await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(batch.lastOffset()) + 1n) }]);
}

function fail(error: unknown): never {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
