// Reads messages as a consumer with the CloudEvents SDK of Go does: see ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
)

type message struct {
	Headers map[string]string
	Value   []byte
}

type answer struct {
	Attributes map[string]any `json:"attributes,omitempty"`
	Refused    string         `json:"refused,omitempty"`
}

func read(line []byte) (map[string]any, error) {
	var given message
	if err := json.Unmarshal(line, &given); err != nil {
		return nil, err
	}
	headers := make(map[string][]byte)
	for name, value := range given.Headers {
		headers[name] = []byte(value)
	}
	read := kafka_sarama.NewMessage(given.Value, given.Headers["content-type"], headers)
	event, err := binding.ToEvent(context.Background(), read)
	if err != nil {
		return nil, err
	}
	if err := event.Validate(); err != nil {
		return nil, err
	}
	attributes := map[string]any{
		"specversion":     event.SpecVersion(),
		"id":              event.ID(),
		"source":          event.Source(),
		"type":            event.Type(),
		"subject":         event.Subject(),
		"datacontenttype": event.DataContentType(),
	}
	for name, value := range event.Extensions() {
		attributes[name] = value
	}
	if event.DataContentType() == "application/json" {
		var data any
		if err := event.DataAs(&data); err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
	}
	return attributes, nil
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		attributes, err := read(line)
		result := answer{Attributes: attributes}
		if err != nil {
			result = answer{Refused: err.Error()}
		}
		if err := answers.Encode(result); err != nil {
			os.Exit(1)
		}
	}
}
