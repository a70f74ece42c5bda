package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
)

type vectors struct {
	Cases []struct {
		Name        string             `json:"name"`
		Events      []json.RawMessage  `json:"events"`
		Transitions [][]Transition     `json:"transitions"`
		State       map[string]*Stream `json:"state"`
	} `json:"cases"`
}

// checkVectors applies the events of every case and compares what comes of them. It returns how many cases there are.
func checkVectors(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var vectors vectors
	if err := json.Unmarshal(text, &vectors); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range vectors.Cases {
		streams := map[string]*Stream{}
		for i, raw := range c.Events {
			event, err := parseEvent(raw)
			if err != nil {
				return 0, fmt.Errorf("%s: event %d: %w", c.Name, i, err)
			}
			if streams[event.Stream] == nil {
				streams[event.Stream] = new(Stream)
			}
			got, want := streams[event.Stream].Apply(event), c.Transitions[i]
			if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
				return 0, fmt.Errorf("%s: event %d: %v instead of %v", c.Name, i, got, want)
			}
		}
		for key, stream := range streams {
			if reflect.DeepEqual(stream, new(Stream)) {
				delete(streams, key)
			}
		}
		got, _ := json.Marshal(streams)
		want, _ := json.Marshal(c.State)
		if string(got) != string(want) {
			return 0, fmt.Errorf("%s: state %s instead of %s", c.Name, got, want)
		}
	}
	return len(vectors.Cases), nil
}
