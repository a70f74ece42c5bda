package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Event holds the members of a structured CloudEvent that the state of a stream depends on.
type Event struct {
	ID     string    `json:"id"`
	Type   string    `json:"type"`
	Time   string    `json:"time"`
	Stream string    `json:"partitionkey"`
	Feed   string    `json:"feedid"`
	Data   eventData `json:"data"`
}

type eventData struct {
	Recording  textID `json:"recordFileId"`
	Media      textID `json:"mediaAssetId"`
	Transcoder textID `json:"transcoderId"`
}

// UnmarshalJSON takes data that is no object, such as a text, for data without ids.
func (d *eventData) UnmarshalJSON(raw []byte) error {
	type plain eventData
	if len(raw) > 0 && raw[0] == '{' {
		return json.Unmarshal(raw, (*plain)(d))
	}
	return nil
}

// textID is an id as text. The provider writes some of them as numbers; anything but a text or a number is no id.
type textID string

func (id *textID) UnmarshalJSON(raw []byte) error {
	switch {
	case raw[0] == '"':
		return json.Unmarshal(raw, (*string)(id))
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		*id = textID(raw)
	}
	return nil
}

// parseEvent reads a structured event, as Forebay publishes it. Its times are all of one length and in UTC, so that comparing the
// texts compares the times.
func parseEvent(value []byte) (Event, error) {
	var event Event
	if err := json.Unmarshal(value, &event); err != nil {
		return event, fmt.Errorf("not a structured CloudEvent: %w", err)
	}
	if event.ID == "" || event.Type == "" || event.Stream == "" {
		return event, errors.New("a CloudEvent without id, type or partitionkey")
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000Z", event.Time); err != nil {
		return event, fmt.Errorf("a CloudEvent of another kind of time: %w", err)
	}
	return event, nil
}

// kind splits com.millicast.feeds.started into feeds and started.
func (e Event) kind() (kind, name string) {
	words := strings.Split(e.Type, ".")
	if len(words) < 2 {
		return "", ""
	}
	return words[len(words)-2], words[len(words)-1]
}
