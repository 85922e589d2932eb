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

// BeginSession keeps for SessionAge, beside the jobs, that whoever names the id it returns
// is owner, for which any text will do. So sessions hold in every process that serves the
// queue, and outlive a restart. The error is ErrNoSpace, or the connection's.
func (q *Queue) BeginSession(ctx context.Context, owner string) (id string, err error) {
	sessions, err := q.kept(ctx)
	if err != nil {
		return "", err
	}
	id = strings.ToLower(rand.Text())
	_, err = sessions.Put(ctx, hashed(id), []byte(owner))
	return id, full(err)
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
