package jobs

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// Segments are in the order of attempts, and those that no record knows of are found, too.
func TestSegments(t *testing.T) {
	j := Job{Attempts: 3, Clip: &Clip{}}
	assert.Empty(t, j.segments(false))
	before := j.Clip
	j.Clip = j.Clip.with(1, 2).with(3, 1)
	assert.Equal(t, []int{2, 0, 1}, j.Clip.Kept)
	assert.Empty(t, before.Kept, "others have it")
	assert.Equal(t, []string{"frames-1-000001", "frames-1-000002", "frames-3-000001"}, j.segments(false))
	assert.Equal(t, []string{"frames-1-000001", "frames-1-000002", "frames-1-000003", "frames-2-000001",
		"frames-3-000001", "frames-3-000002"}, j.segments(true))
	assert.Equal(t, []int{1, 0, 0}, j.Clip.first(1).Kept)
	assert.Equal(t, []int{2, 0, 1}, j.Clip.Kept)
}

// objects are the names of what the store has of a job.
func objects(t testing.TB, q *Queue, id string) (names []string) {
	all, err := q.objects.List(context.Background())
	if !errors.Is(err, jetstream.ErrNoObjectsFound) {
		require.NoError(t, err)
	}
	for _, o := range all {
		if name, of := strings.CutPrefix(o.Name, id+"/"); of {
			names = append(names, name)
		}
	}
	return names
}

// Of kept frames that are damaged or lost those before are used, and at the end none are left.
func TestSegmentsAreLost(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{CheckpointEvery: time.Millisecond})
	e, err := nst.Open(ctx, nsttest.Slim(t), nst.OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	t.Cleanup(e.Close)
	iterations := 30
	j, _, err := q.Submit(ctx, Request{Clip: nsttest.Clip(t, 12, ".mp4"), Styles: [][]byte{read(t, nsttest.Style(t))},
		ClipOptions: ClipOptions{FrameIterations: &iterations},
		Options:     nst.Options{Size: new(64), Iterations: &iterations, Scales: nst.ScalesOff}})
	require.NoError(t, err)
	began := func(segments int) { // until the job has so many
		until, stop := context.WithCancel(ctx)
		done := make(chan error)
		go func() { done <- q.Work(until, e, "") }()
		require.Eventually(t, func() bool {
			j, err = q.Get(ctx, j.ID)
			require.NoError(t, err)
			return j.State.Finished() || len(j.segments(false)) >= segments
		}, time.Minute, 5*time.Millisecond)
		stop()
		require.NoError(t, <-done)
		j, err = q.Get(ctx, j.ID)
		require.NoError(t, err)
	}
	began(3)
	require.Equal(t, Queued, j.State)
	kept := j.segments(false)
	assert.Subset(t, objects(t, q, j.ID), kept)
	require.NoError(t, q.drop(ctx, object(j.ID, kept[len(kept)-1])))
	began(len(kept) + 1)
	require.Equal(t, Queued, j.State)
	assert.Equal(t, len(kept)-1, j.Clip.Kept[0], "the last one is lost")
	at := j.Progress.Frame

	require.NoError(t, q.write(ctx, j.ID, kept[0], strings.NewReader("no frames")))
	began(1 << 20)
	require.Equal(t, Done, j.State, j.Error)
	assert.Zero(t, j.Clip.Kept[0], "nothing could be used")
	assert.Equal(t, 3, j.Attempts)
	assert.Equal(t, 12, j.Result.Frames)
	assert.Greater(t, j.Progress.Frame, at)
	assert.ElementsMatch(t, []string{"clip", "style-1", j.result()}, objects(t, q, j.ID))
	_, gone, err := q.Delete(ctx, j.ID)
	require.NoError(t, err)
	assert.True(t, gone)
	assert.Empty(t, objects(t, q, j.ID))
}

// Whenever a clip is cancelled, nothing of its frames is left.
func TestSegmentsOfACancelledJob(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{CheckpointEvery: time.Millisecond})
	work(t, q)
	iterations := 10
	for segments := range 3 {
		j, _, err := q.Submit(ctx, Request{Clip: nsttest.Clip(t, 50, ".mp4"),
			Styles:      [][]byte{read(t, nsttest.Style(t))},
			ClipOptions: ClipOptions{FrameIterations: &iterations},
			Options:     nst.Options{Size: new(64), Iterations: &iterations, Scales: nst.ScalesOff}})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			j, err = q.Get(ctx, j.ID)
			require.NoError(t, err)
			return j.State == Running && len(j.segments(false)) >= segments
		}, time.Minute, time.Millisecond)
		_, err = q.Cancel(ctx, j.ID)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			all := objects(t, q, j.ID)
			return len(all) == 2 && all[0] == "clip" && all[1] == "style-1"
		}, 20*time.Second, 10*time.Millisecond)
	}
}
