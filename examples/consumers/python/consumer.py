"""Keeps the state of every stream, as Forebay's Kafka topic tells it, in SQLite, and prints what changes."""

import argparse
import json
import signal
import sys

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from streams import Store, check_vectors, read_event

# Records that share a transaction, and so an fsync.
BATCH_RECORDS_MAX = 500

is_stopping = False


def stop(*_) -> None:
    global is_stopping
    is_stopping = True


def connect(brokers: str, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # Who joins or leaves takes only the partitions that move; the others are read on.
            "partition.assignment.strategy": "cooperative-sticky",
            # The partitions of an instance that was killed go to the next one after this long.
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 3_000,
        }
    )


def next_batch(consumer: Consumer) -> list[Message]:
    """What is there now, at most so many; waits a second for the first one."""
    batch: list[Message] = []
    while len(batch) < BATCH_RECORDS_MAX:
        message = consumer.poll(0 if batch else 1)
        if message is None:
            break
        if error := message.error():
            if error.fatal():
                raise KafkaException(error)
            print(f"Kafka: {error}", file=sys.stderr)
        else:
            batch.append(message)
    return batch


def read(message: Message) -> dict | None:
    event = read_event(message.value() or b"")
    if event is None:
        place = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        print(f"skipped {place}: not a structured event", file=sys.stderr)
    return event


def commit(consumer: Consumer, batch: list[Message]) -> None:
    """Commits what is behind the batch, of the partitions that are still ours: a rebalance may have come while it was gathered."""
    ours = {(partition.topic, partition.partition) for partition in consumer.assignment()}
    ends = {(message.topic(), message.partition()): message.offset() + 1 for message in batch}
    offsets = [TopicPartition(*place, offset) for place, offset in ends.items() if place in ours]
    try:
        if offsets:
            consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        # What is not committed comes again, here or elsewhere, and changes nothing.
        print(f"not committed: {error}", file=sys.stderr)


def run(brokers: str, topic: str, group: str, db: str) -> None:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    store = Store(db)
    consumer = connect(brokers, group)
    consumer.subscribe([topic])
    try:
        while not is_stopping:
            if batch := next_batch(consumer):
                # The order matters: stored, then told, then committed.
                for transition in store.apply(event for event in map(read, batch) if event):
                    print(json.dumps(transition), flush=True)
                commit(consumer, batch)
    finally:
        consumer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("brokers", "topic", "group", "db", "vectors"):
        parser.add_argument(f"--{option}")
    arguments = vars(parser.parse_args())
    if vectors := arguments.pop("vectors"):
        print(check_vectors(vectors))
    elif missing := [f"--{name}" for name, value in arguments.items() if not value]:
        parser.error(f"missing: {', '.join(missing)}")
    else:
        run(**arguments)


if __name__ == "__main__":
    main()
