package jobs

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Tidying deletes old jobs and what writers that died have left, and sends what was
// never sent; nothing else.
func TestTidy(t *testing.T) {
	ctx := context.Background()
	server, err := StartServer(ServerConfig{Dir: t.TempDir()})
	require.NoError(t, err)
	defer server.Close()
	nc, err := server.Connect()
	require.NoError(t, err)
	defer nc.Close()
	q, err := Open(ctx, nc, Config{Retention: time.Hour})
	require.NoError(t, err)
	defer q.Close()
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	job := func(letter string, s State, when time.Time) string {
		j := Job{ID: strings.Repeat(letter, 26), State: s, Created: when}
		if s.Finished() {
			j.Finished = &when
		}
		_, err := q.store(ctx, Request{Content: []byte("picture")}, j)
		require.NoError(t, err)
		return j.ID
	}
	old, young := job("a", Done, ago(2*time.Hour)), job("b", Done, ago(time.Minute))
	unsent, sent := job("c", Queued, ago(5*time.Minute)), job("d", Queued, ago(5*time.Minute))
	require.NoError(t, q.stream.Purge(ctx, jetstream.WithPurgeSubject(workSubject+unsent)))
	for _, subject := range []string{"$O.nst-pictures.C.ORPHAN"} {
		_, err := q.js.Publish(ctx, subject, []byte("a part of a checkpoint"))
		require.NoError(t, err)
	}
	chunks := func() (n int) {
		s, err := q.js.Stream(ctx, "OBJ_nst-pictures")
		require.NoError(t, err)
		info, err := s.Info(ctx, jetstream.WithSubjectFilter("$O.nst-pictures.C.>"))
		require.NoError(t, err)
		return len(info.State.Subjects)
	}
	require.Equal(t, 5, chunks())

	seen, err := q.tidyOnce(ctx, nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{"$O.nst-pictures.C.ORPHAN": true}, seen)
	assert.Equal(t, 4, chunks(), "one of the old job has gone")
	seen, err = q.tidyOnce(ctx, seen)
	require.NoError(t, err)
	assert.Empty(t, seen)
	assert.Equal(t, 3, chunks())

	_, err = q.load(ctx, old)
	require.ErrorIs(t, err, ErrNotFound)
	for _, id := range []string{young, unsent, sent} {
		_, err := q.load(ctx, id)
		require.NoError(t, err)
		data, err := q.read(ctx, id, "content")
		require.NoError(t, err)
		assert.Equal(t, "picture", string(data))
	}
	for _, id := range []string{unsent, sent} {
		_, err := q.stream.GetLastMsgForSubject(ctx, workSubject+id)
		assert.NoError(t, err, id)
	}
}
