package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SessionAge is how long a session lasts.
const SessionAge = 30 * 24 * time.Hour

const sessionBucket = "nst-sessions"

// MaxSessions is how many sessions an owner may have: the oldest ends when there is one more.
const MaxSessions = 32

// BeginSession keeps for SessionAge, with the jobs, that whoever names the id it returns
// is owner, for which any text will do. So sessions hold in every process that serves the
// queue, and outlive a restart. The error is ErrNoSpace, or the connection's.
func (q *Queue) BeginSession(ctx context.Context, owner string) (id string, err error) {
	sessions, err := q.kept(ctx)
	if err != nil {
		return "", err
	}
	id = strings.ToLower(rand.Text())
	if _, err = sessions.Put(ctx, hashed(id), []byte(owner)); err != nil {
		return "", full(err)
	}
	return id, full(endOldest(ctx, sessions, owner, hashed(id)))
}

// endOldest adds a session to an owner's, of which it ends those that are too many.
func endOldest(ctx context.Context, sessions jetstream.KeyValue, owner, session string) error {
	key := "of." + hashed(owner)
	for {
		var all []string
		e, err := sessions.Get(ctx, key)
		switch {
		case err == nil:
			all = strings.Fields(string(e.Value()))
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return err
		}
		all = append(all, session)
		over := max(0, len(all)-MaxSessions)
		value := []byte(strings.Join(all[over:], " "))
		if e == nil {
			_, err = sessions.Create(ctx, key, value)
		} else {
			_, err = sessions.Update(ctx, key, value, e.Revision())
		}
		if conflicts(err) {
			continue
		}
		for _, old := range all[:over] {
			err = errors.Join(err, sessions.Purge(ctx, old))
		}
		return err
	}
}

// Session returns whose a session is. The error is ErrNotFound (it has ended, or never
// began), or the connection's.
func (q *Queue) Session(ctx context.Context, id string) (owner string, err error) {
	if !validID(id) {
		return "", ErrNotFound
	}
	sessions, err := q.kept(ctx)
	if err != nil {
		return "", err
	}
	e, err := sessions.Get(ctx, hashed(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", err
	}
	return string(e.Value()), nil
}

// EndSession ends a session everywhere, at once. Ended twice it is ended.
func (q *Queue) EndSession(ctx context.Context, id string) error {
	if !validID(id) {
		return nil
	}
	sessions, err := q.kept(ctx)
	if err != nil {
		return err
	}
	return full(sessions.Purge(ctx, hashed(id)))
}

// kept is where sessions are: whoever keeps the queue has made the place, and who joins it
// looks for it when it is wanted.
func (q *Queue) kept(ctx context.Context) (jetstream.KeyValue, error) {
	if q.sessions != nil {
		return q.sessions, nil
	}
	return q.js.KeyValue(ctx, sessionBucket)
}
