// Command consumer keeps the state of every stream in SQLite, from events that Forebay publishes to Kafka, and prints what changes.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// batchRecords is how many records one transaction takes at most.
const batchRecords = 500

func main() {
	brokers := flag.String("brokers", "localhost:9092", "Kafka's `list` of host:port")
	topic := flag.String("topic", "millicast.events", "the `name` of the topic")
	group := flag.String("group", "streams", "the `id` of the consumer group")
	db := flag.String("db", "streams.db", "the SQLite `file` with the states")
	vectors := flag.String("vectors", "", "check the rules against this `file` instead, and exit")
	flag.Parse()

	if *vectors != "" {
		count, err := checkVectors(*vectors)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("ok", count)
		return
	}
	if err := run(strings.Split(*brokers, ","), *topic, *group, *db); err != nil {
		log.Fatal(err)
	}
}

// run consumes until SIGTERM or SIGINT; a second one ends the process at once.
func run(brokers []string, topic, group, db string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	store, err := openStore(db)
	if err != nil {
		return err
	}
	defer store.Close()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Offsets are committed by hand, after the transaction.
		kgo.DisableAutoCommit(),
		// No partition changes hands between a poll and the commit of what it returned.
		kgo.BlockRebalanceOnPoll(),
		// How soon the partitions of a consumer that was killed go to another.
		kgo.SessionTimeout(10*time.Second),
	)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()

	for {
		fetches := client.PollRecords(ctx, batchRecords)
		if ctx.Err() != nil {
			return nil
		}
		// The client itself goes on trying.
		fetches.EachError(func(topic string, partition int32, err error) {
			log.Printf("%s[%d]: %v", topic, partition, err)
		})
		if err := process(context.WithoutCancel(ctx), client, store, fetches); err != nil {
			return err
		}
		client.AllowRebalance()
	}
}

// process stores what the records change, tells it, and only then commits their offsets. After a crash in between they come
// again, and change nothing.
func process(ctx context.Context, client *kgo.Client, store *Store, fetches kgo.Fetches) error {
	if fetches.Empty() {
		return nil
	}
	var events []Event
	fetches.EachRecord(func(record *kgo.Record) {
		event, err := parseEvent(record.Value)
		if err != nil {
			log.Printf("skipped %s[%d]@%d: %v", record.Topic, record.Partition, record.Offset, err)
			return
		}
		events = append(events, event)
	})
	transitions, err := store.Apply(ctx, events)
	if err != nil {
		return fmt.Errorf("nothing of this batch is stored: %w", err)
	}
	out := json.NewEncoder(os.Stdout)
	for _, transition := range transitions {
		if err := out.Encode(transition); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := client.CommitRecords(ctx, fetches.Records()...); err != nil {
		// Not lost: they come again, here or in another member of the group.
		log.Printf("offsets are not committed: %v", err)
	}
	return nil
}
