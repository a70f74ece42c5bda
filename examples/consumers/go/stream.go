package main

import "slices"

// Stream is what is known of one stream. Events may be applied in any order and any number of times: the state comes out the same.
type Stream struct {
	Feeds       map[string]Feed     `json:"feeds,omitempty"`
	Recordings  map[string]Progress `json:"recordings,omitempty"`
	Media       map[string]Progress `json:"media,omitempty"`
	Transcoders map[string]Status   `json:"transcoders,omitempty"`
	Viewers     *Status             `json:"viewers,omitempty"`
}

// Feed is one publish session. It is open from its start until it is seen to have ended, and never starts again.
type Feed struct {
	StartedAt string `json:"startedAt,omitempty"`
	EndedAt   string `json:"endedAt,omitempty"`
}

// Progress is how far a recording or a media asset has come, and the earliest time that tells of it.
type Progress struct {
	Phase string `json:"phase"`
	At    string `json:"at"`
}

// Status is what the latest event says, by (At, ID).
type Status struct {
	Status string `json:"status"`
	At     string `json:"at"`
	ID     string `json:"id"`
}

// Transition is something that a service acts on.
type Transition struct {
	Type       string `json:"type"`
	Key        string `json:"key"`
	Feed       string `json:"feed,omitempty"`
	Recording  string `json:"recording,omitempty"`
	Media      string `json:"media,omitempty"`
	Transcoder string `json:"transcoder,omitempty"`
	Status     string `json:"status,omitempty"`
}

// The phases in their order, and what is told when one is reached.
var (
	recordingPhases  = []string{"started", "error", "completed", "deleted"}
	recordingReached = []string{"RecordingStarted", "RecordingFailed", "RecordingCompleted", "RecordingDeleted"}
	mediaPhases      = []string{"processing", "errored", "completed", "deleted"}
	mediaReached     = []string{"MediaProcessing", "MediaFailed", "MediaCompleted", "MediaDeleted"}
	transcoderStatus = []string{"active", "stopped", "deleted"}
	viewersStatus    = []string{"viewerattempt", "firstviewerconnection", "noactiveviewers"}
)

// Live says whether any feed is open.
func (s *Stream) Live() bool {
	for _, feed := range s.Feeds {
		if feed.StartedAt != "" && feed.EndedAt == "" {
			return true
		}
	}
	return false
}

// Apply joins an event into the state and tells what that changed. An event that it does not know changes nothing.
func (s *Stream) Apply(event Event) []Transition {
	kind, name := event.kind()
	told := Transition{Key: event.Stream}
	switch kind {
	case "feeds":
		return s.applyFeed(event, name)
	case "recordings":
		told.Recording = string(event.Data.Recording)
		told.Type = advance(&s.Recordings, told.Recording, name, event.Time, recordingPhases, recordingReached)
	case "media":
		told.Media = string(event.Data.Media)
		told.Type = advance(&s.Media, told.Media, name, event.Time, mediaPhases, mediaReached)
	case "transcoder":
		told.Transcoder, told.Status = string(event.Data.Transcoder), name
		told.Type = s.applyTranscoder(event, name)
	case "viewerconnection":
		told.Status = name
		told.Type = s.applyViewers(event, name)
	}
	if told.Type == "" {
		return nil
	}
	return []Transition{told}
}

func (s *Stream) applyFeed(event Event, name string) []Transition {
	if event.Feed == "" {
		return nil
	}
	wasLive, before := s.Live(), s.Feeds[event.Feed]
	feed, told := before, ""
	switch name {
	case "started":
		feed.StartedAt = earliest(before.StartedAt, event.Time)
		if before == (Feed{}) {
			told = "FeedStarted"
		}
	case "ended":
		feed.EndedAt = earliest(before.EndedAt, event.Time)
		if before.EndedAt == "" {
			told = "FeedEnded"
		}
	default:
		return nil
	}
	put(&s.Feeds, event.Feed, feed)
	var transitions []Transition
	if told != "" {
		transitions = append(transitions, Transition{Type: told, Key: event.Stream, Feed: event.Feed})
	}
	if live := s.Live(); live && !wasLive {
		transitions = append(transitions, Transition{Type: "WentLive", Key: event.Stream})
	} else if wasLive && !live {
		transitions = append(transitions, Transition{Type: "WentOffline", Key: event.Stream})
	}
	return transitions
}

// advance moves id to a phase, unless it has come further, and returns what is told if the phase rises.
func advance(of *map[string]Progress, id, phase, at string, phases, reached []string) string {
	rank := slices.Index(phases, phase)
	if id == "" || rank < 0 {
		return ""
	}
	known, seen := (*of)[id]
	switch knownRank := slices.Index(phases, known.Phase); {
	case !seen || rank > knownRank:
		put(of, id, Progress{phase, at})
		return reached[rank]
	case rank == knownRank:
		put(of, id, Progress{phase, earliest(known.At, at)})
	}
	return ""
}

func (s *Stream) applyTranscoder(event Event, status string) string {
	id := string(event.Data.Transcoder)
	if id == "" || !slices.Contains(transcoderStatus, status) {
		return ""
	}
	known := s.Transcoders[id]
	latest := latest(known, Status{status, event.Time, event.ID})
	put(&s.Transcoders, id, latest)
	if latest.Status == known.Status {
		return ""
	}
	return "TranscoderChanged"
}

func (s *Stream) applyViewers(event Event, status string) string {
	if !slices.Contains(viewersStatus, status) {
		return ""
	}
	var known Status
	if s.Viewers != nil {
		known = *s.Viewers
	}
	latest := latest(known, Status{status, event.Time, event.ID})
	s.Viewers = &latest
	if latest.Status == known.Status {
		return ""
	}
	return "ViewersChanged"
}

func latest(a, b Status) Status {
	if b.At > a.At || b.At == a.At && b.ID > a.ID {
		return b
	}
	return a
}

// earliest is the smaller time; known may be empty.
func earliest(known, at string) string {
	if known == "" {
		return at
	}
	return min(known, at)
}

func put[V any](of *map[string]V, id string, value V) {
	if *of == nil {
		*of = map[string]V{}
	}
	(*of)[id] = value
}
