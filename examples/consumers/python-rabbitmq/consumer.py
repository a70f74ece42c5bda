"""Keeps the state of every stream, as Forebay's RabbitMQ queues tell it, in SQLite, and prints what changes."""

import argparse
import json
import signal
import socket
import sys
import time

import pika
from pika.exceptions import AMQPError

from streams import Store, check_vectors, read_event

# Messages of a queue that may be on their way to us, and so share a transaction and an fsync.
PREFETCH_COUNT = 500
RECONNECT_SECONDS_MAX = 30

is_stopping = False


def stop(*_) -> None:
    global is_stopping
    is_stopping = True


class Batch:
    """What was delivered on a channel and is not acknowledged yet."""

    def __init__(self) -> None:
        self.events: list[dict] = []
        self.delivery_tag = 0

    def add(self, _channel, method, _properties, body: bytes) -> None:
        self.delivery_tag = method.delivery_tag
        if event := read_event(body):
            self.events.append(event)
        else:
            print(f"skipped message {method.routing_key}: not a structured event", file=sys.stderr)

    def clear(self) -> None:
        self.events.clear()
        self.delivery_tag = 0


def fill(batch: Batch, connection: pika.BlockingConnection) -> None:
    """Adds what is there already: pika hands over the few messages that one read from the socket holds."""
    count = 0
    while count < len(batch.events) < PREFETCH_COUNT:
        count = len(batch.events)
        connection.process_data_events(time_limit=0)


def cancelled(frame) -> None:
    raise AMQPError(f"the broker cancelled {frame.method.consumer_tag}: its queue is gone, or moved")


def consume(connection: pika.BlockingConnection, queues: list[str], store: Store) -> None:
    """Reads the queues until the connection fails or the process is told to stop."""
    batch = Batch()
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH_COUNT)
    channel.add_on_cancel_callback(cancelled)
    for queue in queues:
        # Not exclusive: of several instances the queue's single active consumer reads, and the next one takes over from it.
        channel.basic_consume(queue, batch.add, consumer_tag=queue)
    while not is_stopping:
        connection.process_data_events(time_limit=1)
        if batch.delivery_tag:
            fill(batch, connection)
            # The order matters: stored, then told, then acknowledged, together with all that came before on this channel.
            for transition in store.apply(batch.events):
                print(json.dumps(transition), flush=True)
            channel.basic_ack(batch.delivery_tag, multiple=True)
            batch.clear()


def run(amqp: str, queues: list[str], db: str) -> None:
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    store = Store(db)
    seconds = 1
    while not is_stopping:
        try:
            with pika.BlockingConnection(pika.URLParameters(amqp)) as connection:
                seconds = 1
                consume(connection, queues, store)
        except (AMQPError, socket.gaierror) as error:
            # What was not acknowledged is delivered again, and changes nothing.
            print(f"RabbitMQ: {error!r}; again in {seconds} s", file=sys.stderr)
            wait(seconds)
            seconds = min(2 * seconds, RECONNECT_SECONDS_MAX)


def wait(seconds: int) -> None:
    """Waits, or ends within a second when the process is told to stop."""
    for _ in range(seconds):
        if not is_stopping:
            time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", metavar="URI")
    parser.add_argument("--queue", dest="queues", action="append", metavar="NAME")
    parser.add_argument("--db")
    parser.add_argument("--vectors")
    arguments = vars(parser.parse_args())
    if vectors := arguments.pop("vectors"):
        print(check_vectors(vectors))
    elif not all(arguments.values()):
        parser.error("--amqp, --queue and --db are required, or --vectors")
    else:
        run(**arguments)


if __name__ == "__main__":
    main()
