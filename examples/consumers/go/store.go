package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	_ "modernc.org/sqlite"
)

// Store keeps the state of every stream in SQLite.
type Store struct{ db *sql.DB }

// openStore opens the database. A transaction takes the write lock at its beginning, so that nobody writes between its reading of a
// state and its writing of it.
func openStore(path string) (*Store, error) {
	db, err := sql.Open("sqlite", path+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec("CREATE TABLE IF NOT EXISTS streams(key TEXT PRIMARY KEY, state TEXT NOT NULL)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, errors.Join(err, db.Close()))
	}
	return &Store{db}, nil
}

func (s *Store) Close() error { return s.db.Close() }

// Apply applies events in one transaction. What it returns is stored.
func (s *Store) Apply(ctx context.Context, events []Event) ([]Transition, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()

	var transitions []Transition
	streams := map[string]*Stream{}
	for _, event := range events {
		stream := streams[event.Stream]
		if stream == nil {
			if stream, err = load(ctx, tx, event.Stream); err != nil {
				return nil, err
			}
			streams[event.Stream] = stream
		}
		transitions = append(transitions, stream.Apply(event)...)
	}
	for key, stream := range streams {
		if err := save(ctx, tx, key, stream); err != nil {
			return nil, err
		}
	}
	return transitions, tx.Commit()
}

func load(ctx context.Context, tx *sql.Tx, key string) (*Stream, error) {
	var state []byte
	stream := new(Stream)
	err := tx.QueryRowContext(ctx, "SELECT state FROM streams WHERE key = ?", key).Scan(&state)
	if errors.Is(err, sql.ErrNoRows) {
		return stream, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(state, stream); err != nil {
		return nil, fmt.Errorf("state of %s: %w", key, err)
	}
	return stream, nil
}

// save leaves out a stream of which nothing is known.
func save(ctx context.Context, tx *sql.Tx, key string, stream *Stream) error {
	state, err := json.Marshal(stream)
	if err != nil || string(state) == "{}" {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO streams(key, state) VALUES(?, ?)
		ON CONFLICT(key) DO UPDATE SET state = excluded.state WHERE state <> excluded.state`, key, string(state))
	return err
}
