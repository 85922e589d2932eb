package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
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
// is owner, for which any text will do, and one of MaxSessions of a name. So sessions hold in
// every process that serves the queue, and outlive a restart. The error is ErrNoSpace, or the
// connection's.
func (q *Queue) BeginSession(ctx context.Context, owner, name string) (id string, err error) {
	sessions, err := q.kept(ctx)
	if err != nil {
		return "", err
	}
	id = strings.ToLower(rand.Text())
	if _, err = sessions.Put(ctx, hashed(id), []byte(owner+"\n"+name)); err != nil {
		return "", full(err)
	}
	return id, full(changeSessions(ctx, sessions, name, func(all []string) []string { return append(all, hashed(id)) }))
}

// changeSessions changes the list of a name's sessions, oldest first, and ends those that are too
// many.
func changeSessions(ctx context.Context, sessions jetstream.KeyValue, name string,
	change func([]string) []string) error {
	key := "of." + hashed(name)
	for {
		var all []string
		e, err := sessions.Get(ctx, key)
		switch {
		case err == nil:
			all = strings.Fields(string(e.Value()))
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return err
		}
		all = change(all)
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
	owner, _, _ = strings.Cut(string(e.Value()), "\n") // before version 5 of the records it had no name
	return owner, nil
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
	e, err := sessions.Get(ctx, hashed(id))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	_, name, _ := strings.Cut(string(e.Value()), "\n")
	err = changeSessions(ctx, sessions, name, func(all []string) []string {
		return slices.DeleteFunc(all, func(one string) bool { return one == hashed(id) })
	})
	return full(errors.Join(err, sessions.Purge(ctx, hashed(id))))
}

// kept is where sessions are: whoever keeps the queue has made the place, and who joins it
// looks for it when it is wanted.
func (q *Queue) kept(ctx context.Context) (jetstream.KeyValue, error) {
	if q.sessions != nil {
		return q.sessions, nil
	}
	return q.js.KeyValue(ctx, sessionBucket)
}
