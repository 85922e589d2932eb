package jobs_test

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// A long job of one owner is put back at a checkpoint when another's waits, as often as that is
// so, and its picture is that of a job which nobody disturbed.
func TestLongJobsTakeTurns(t *testing.T) {
	q := jobstest.Open(t, jobs.Config{Turn: 100 * time.Millisecond, CheckpointEvery: 50 * time.Millisecond})
	e := jobstest.Engine(t)
	long := request(t, 64, 2500)
	long.Owner = jobs.Owner{Name: "ann"}
	first := submit(t, q, long)
	jobstest.Work(t, q, e)
	at := 0
	for range 2 {
		until(t, q, first.ID, func(j jobs.Job) bool {
			return j.State == jobs.Running && j.Progress != nil && j.Progress.Iteration > at
		})
		short := submit(t, q, of(t, jobs.Owner{Name: "bob"}))
		until(t, q, short.ID, finished)
		j, err := q.Get(context.Background(), first.ID)
		require.NoError(t, err)
		require.False(t, j.State.Finished(), "bob has not waited for it")
		require.NotEmpty(t, j.Checkpoint)
		require.Greater(t, j.Progress.Iteration, at, "it goes on from where it was")
		at = j.Progress.Iteration
	}
	disturbed := until(t, q, first.ID, finished)
	require.Equal(t, jobs.Done, disturbed.State, disturbed.Error)
	assert.GreaterOrEqual(t, disturbed.Attempts, 3)
	assert.Equal(t, 2500, disturbed.Result.Iterations)
	assert.Zero(t, disturbed.Deaths)
	assert.Empty(t, disturbed.Failures)
	// A higher priority gives its turn to none that is lower, and an owner not to itself.
	long.Owner.Priority = 1
	second := submit(t, q, long)
	until(t, q, second.ID, func(j jobs.Job) bool { return j.State == jobs.Running })
	submit(t, q, of(t, jobs.Owner{Name: "bob"}))
	submit(t, q, of(t, jobs.Owner{Name: "ann", Priority: 1}))
	whole := until(t, q, second.ID, finished)
	assert.Equal(t, 1, whole.Attempts)
	decoded := func(id string) *picture.Picture { // the files tell of the memory that was free
		data, err := q.Picture(context.Background(), id, "result")
		require.NoError(t, err)
		p, err := picture.Decode(bytes.NewReader(data))
		require.NoError(t, err)
		return p
	}
	assert.True(t, assert.ObjectsAreEqual(decoded(second.ID), decoded(first.ID)))
}

// A job that takes longer than it may is what it is then.
func TestTimeOfAJob(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{MaxSeconds: 600}), jobstest.Engine(t)
	r := request(t, 96, 20_000)
	r.Owner = jobs.Owner{Name: "ann", MaxSeconds: 2}
	j := submit(t, q, r)
	assert.Equal(t, 2.0, j.MaxSeconds)
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, finished)
	require.Equal(t, jobs.Done, j.State, j.Error)
	assert.Less(t, j.Result.Iterations, 20_000)
	require.NotEmpty(t, j.Warnings)
	assert.Contains(t, j.Warnings[len(j.Warnings)-1], "all the time that it may take (2 seconds)")
	_, err := q.Picture(context.Background(), j.ID, "result")
	assert.NoError(t, err)
	other := submit(t, q, of(t, jobs.Owner{Name: "bob"}))
	assert.Equal(t, 600.0, other.MaxSeconds)
}

// Work counts as pixels times iterations, and what is refused counts as nothing.
func TestWorkOfADay(t *testing.T) {
	q := jobstest.Open(t, jobs.Config{})
	ann := jobs.Owner{Name: "ann", WorkADay: 5 * 32 * 24, PixelsADay: 1 << 20} // a request is 32×24, twice
	for range 2 {
		submit(t, q, of(t, ann))
	}
	_, _, err := q.Submit(context.Background(), of(t, ann))
	var quota *jobs.QuotaError
	require.ErrorAs(t, err, &quota)
	assert.Contains(t, quota.Error(), "the job asks for 1536 pixels times iterations, and of the 3840 that ann may "+
		"ask for a day 768 are left")
	one := 1
	r := of(t, ann)
	r.Options.Iterations = &one
	submit(t, q, r)
}

// Many at once are not granted the same room.
func TestRoomAtOnce(t *testing.T) {
	probe := jobstest.Open(t, jobs.Config{})
	one := submit(t, probe, request(t, 64, 6)).Reserved
	const room = 5
	q := jobstest.Open(t, jobs.Config{MaxBytes: room*one + one/2})
	var group sync.WaitGroup
	var mutex sync.Mutex
	granted := 0
	for range 20 {
		group.Go(func() {
			_, _, err := q.Submit(context.Background(), request(t, 64, 6))
			mutex.Lock()
			defer mutex.Unlock()
			if err == nil {
				granted++
			} else {
				assert.ErrorIs(t, err, jobs.ErrNoSpace)
			}
		})
	}
	group.Wait()
	assert.LessOrEqual(t, granted, room)
	assert.Positive(t, granted)
}

// An observer may use the queue, and hears of changes in their order.
func TestObservers(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	var mutex sync.Mutex
	states := map[string][]jobs.State{}
	stop := q.Observe(func(_, after jobs.Job) {
		j, err := q.Get(context.Background(), after.ID)
		assert.NoError(t, err)
		assert.GreaterOrEqual(t, j.Revision, after.Revision)
		assert.NotEmpty(t, q.List())
		mutex.Lock()
		defer mutex.Unlock()
		if seen := states[after.ID]; len(seen) == 0 || seen[len(seen)-1] != after.State {
			states[after.ID] = append(seen, after.State)
		}
	})
	defer stop()
	jobstest.Work(t, q, e)
	var all []jobs.Job
	for range 3 {
		all = append(all, submit(t, q, request(t, 32, 3)))
	}
	for _, j := range all {
		until(t, q, j.ID, finished)
	}
	require.Eventually(t, func() bool {
		mutex.Lock()
		defer mutex.Unlock()
		for _, j := range all {
			if seen := states[j.ID]; len(seen) == 0 || seen[len(seen)-1] != jobs.Done {
				return false
			}
		}
		return true
	}, time.Minute, 10*time.Millisecond)
	mutex.Lock()
	defer mutex.Unlock()
	for _, j := range all {
		assert.Equal(t, []jobs.State{jobs.Queued, jobs.Running, jobs.Done}, states[j.ID])
	}
}

// An owner's oldest session ends when there are too many.
func TestSessionsOfAnOwner(t *testing.T) {
	ctx := context.Background()
	q := jobstest.Open(t, jobs.Config{})
	var all []string
	for range jobs.MaxSessions + 2 {
		id, err := q.BeginSession(ctx, "a token of hers", "ann")
		require.NoError(t, err)
		all = append(all, id)
	}
	others, err := q.BeginSession(ctx, "bob", "bob")
	require.NoError(t, err)
	for i, id := range append(all, others) {
		owner, err := q.Session(ctx, id)
		if i < 2 {
			assert.ErrorIs(t, err, jobs.ErrNotFound)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, map[bool]string{true: "bob", false: "a token of hers"}[id == others], owner)
	}
}
