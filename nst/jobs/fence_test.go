package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A worker that was paused and comes back overwrites neither the checkpoint nor the result of
// its successor, though it does not know yet that it has lost the job.
func TestPausedWorker(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{})
	j := submit(t, q, 1)
	begin := func(name string) *worker {
		w := &worker{queue: q, info: WorkerInfo{Name: name}}
		var now Job
		require.NoError(t, q.edit(ctx, j.ID, &now, func(j *Job) error {
			j.Attempts++
			j.State, j.Worker = Running, name
			return nil
		}))
		w.attempt, j = now.Attempts, now
		return w
	}
	keep := func(w *worker, job Job, text string) (ended bool, err error) {
		s := w.saver(job, func(cause error) { ended = cause == errLost })
		return ended, s.keepAs(ctx, bytes.NewBufferString(text))
	}
	paused := begin("paused")
	pausedJob := j
	_, err := keep(paused, pausedJob, "of the first")
	require.NoError(t, err)
	next := begin("next")
	_, err = keep(next, j, "of the second")
	require.NoError(t, err)

	ended, err := keep(paused, pausedJob, "of the first again")
	require.ErrorIs(t, err, errLost)
	assert.True(t, ended)
	now, err := q.load(ctx, j.ID)
	require.NoError(t, err)
	data, err := q.read(ctx, j.ID, now.checkpoint())
	require.NoError(t, err)
	assert.Equal(t, "of the second", string(data))

	store := func(w *worker, text string) error {
		return w.finish(ctx, ctx, w.saver(j, func(error) {}), func(once context.Context) error {
			return q.write(once, j.ID, resultOf(w.attempt), strings.NewReader(text))
		}, func(j *Job) { j.Result = &Result{Bytes: len(text)} })
	}
	require.NoError(t, store(next, "the picture"))
	assert.ErrorIs(t, store(paused, "another picture"), errLost)
	data, err = q.Picture(ctx, j.ID, "result")
	require.NoError(t, err)
	assert.Equal(t, "the picture", string(data))
	// Nothing is left of either when the job goes, in which both wrote.
	_, gone, err := q.Delete(ctx, j.ID)
	require.NoError(t, err)
	assert.True(t, gone)
	assert.Empty(t, objects(t, q, j.ID))
}

// A successor that has kept nothing yet goes on from what was kept before it, whatever the paused
// worker writes.
func TestPausedWorkerSparesTheCheckpoint(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{})
	j := submit(t, q, 1)
	var now Job
	begin := func(name string) {
		require.NoError(t, q.edit(ctx, j.ID, &now, func(j *Job) error {
			j.Attempts++
			j.State, j.Worker = Running, name
			return nil
		}))
	}
	begin("paused")
	paused := &worker{queue: q, info: WorkerInfo{Name: "paused"}, attempt: now.Attempts}
	s := paused.saver(now, func(error) {})
	require.NoError(t, s.keepAs(ctx, bytes.NewBufferString("kept")))
	begin("next")
	require.ErrorIs(t, s.keepAs(ctx, bytes.NewBufferString("late")), errLost)
	now, err := q.load(ctx, j.ID)
	require.NoError(t, err)
	data, err := q.read(ctx, j.ID, now.checkpoint())
	require.NoError(t, err)
	assert.Equal(t, "kept", string(data))
}

// The same name is no right to a job that another attempt has: a worker may have been started anew.
func TestAttemptOfTheSameName(t *testing.T) {
	var now Job
	require.NoError(t, json.Unmarshal([]byte(`{"state":"running","worker":"w","attempts":3}`), &now))
	for attempt, want := range map[int]error{2: errLost, 3: nil} {
		w := &worker{info: WorkerInfo{Name: "w"}, attempt: attempt}
		assert.ErrorIs(t, w.mine(func(*Job) {})(&now), want)
	}
}
