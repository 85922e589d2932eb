package jobs

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// openQueue is jobstest.Open, which tests in the package itself cannot import.
func openQueue(t *testing.T, c Config) *Queue {
	nsttest.Idle(t)
	server, err := StartServer(ServerConfig{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	nc, err := server.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	q, err := Open(context.Background(), nc, c)
	require.NoError(t, err)
	t.Cleanup(q.Close)
	return q
}

// chunksOf counts the messages of each object.
func chunksOf(t *testing.T, q *Queue) map[string]uint64 {
	s, err := q.js.Stream(context.Background(), objectStream)
	require.NoError(t, err)
	info, err := s.Info(context.Background(), jetstream.WithSubjectFilter(chunkSubject+">"))
	require.NoError(t, err)
	return info.State.Subjects
}

// What is written is read, by nats.go's own reader, which checks the digest; a
// second writing takes the first's place.
func TestObjects(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{})
	random := rand.NewChaCha8([32]byte{})
	for size, chunks := range map[int]uint64{0: 0, 1: 1, chunkSize: 1, chunkSize + 1: 2,
		(inFlight+6)*chunkSize - 1: inFlight + 6} {
		data := make([]byte, size)
		_, _ = random.Read(data)
		require.NoError(t, q.write(ctx, "job", "result", bytes.NewReader(data)))
		got, err := q.read(ctx, "job", "result")
		require.NoError(t, err)
		assert.True(t, bytes.Equal(data, got), size)
		total := uint64(0)
		for _, n := range chunksOf(t, q) {
			total += n
		}
		assert.Equal(t, chunks, total)
	}
	ended, end := context.WithCancel(ctx)
	end()
	assert.ErrorIs(t, q.write(ended, "job", "result", strings.NewReader("later")), context.Canceled)
	got, err := q.read(ctx, "job", "result")
	require.NoError(t, err)
	assert.NotEqual(t, "later", string(got))
}

// Tidying deletes old jobs and what writers that died have left, and sends what was
// never sent; nothing else.
func TestTidy(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{Retention: time.Hour})
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
	_, err := q.js.Publish(ctx, chunkSubject+"ORPHAN", []byte("a part of a checkpoint"))
	require.NoError(t, err)
	chunks := func() int { return len(chunksOf(t, q)) }
	require.Equal(t, 5, chunks())

	seen, err := q.tidyOnce(ctx, nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{chunkSubject + "ORPHAN": true}, seen)
	assert.Equal(t, 4, chunks(), "one of the old job has gone")
	again, err := q.tidyOnce(ctx, seen)
	require.NoError(t, err)
	assert.Equal(t, seen, again, "it may be being written")
	defer func(d time.Duration) { quietFor = d }(quietFor)
	quietFor = 0
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

// What was stored for a job that has no record goes when it is old.
func TestForgotten(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{Retention: time.Hour})
	id := strings.Repeat("e", 26)
	require.NoError(t, q.write(ctx, id, "checkpoint", strings.NewReader("late")))
	require.NoError(t, q.forgotten(ctx))
	_, err := q.read(ctx, id, "checkpoint")
	require.NoError(t, err, "it may be being made")
	q.config.Retention = 0
	require.NoError(t, q.forgotten(ctx))
	_, err = q.read(ctx, id, "checkpoint")
	assert.ErrorIs(t, err, ErrNotFound)
}
