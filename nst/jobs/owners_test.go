package jobs_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// connected is a server of its own, on which there is no queue yet.
func connected(t *testing.T) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	nc, err := server.Connect()
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return nc, js
}

// of is a small request of an owner.
func of(t testing.TB, o jobs.Owner) jobs.Request {
	r := request(t, 32, 2)
	r.Owner = o
	return r
}

// made are the jobs in the order in which they were begun, when all are finished.
func made(t *testing.T, q *jobs.Queue) []jobs.Job {
	t.Helper()
	for _, j := range q.List() {
		j = until(t, q, j.ID, finished)
		require.Equal(t, jobs.Done, j.State, j.Error)
	}
	all := q.List()
	slices.SortFunc(all, func(a, b jobs.Job) int { return a.Started.Compare(*b.Started) })
	return all
}

// One who has many jobs does not keep another's one from being next; who comes first among
// one's own is who came first; a higher priority goes before all.
func TestOwnersTakeTurns(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	var anns []string
	for range 6 {
		anns = append(anns, submit(t, q, of(t, jobs.Owner{Name: "ann"})).ID)
	}
	bobs := submit(t, q, of(t, jobs.Owner{Name: "bob"})).ID
	nobodys := submit(t, q, of(t, jobs.Owner{})).ID
	urgent := submit(t, q, of(t, jobs.Owner{Name: "carol", Priority: 1})).ID
	jobstest.Work(t, q, e)
	var order, ann []string
	for _, j := range made(t, q) {
		order = append(order, j.ID)
		if j.Owner == "ann" {
			ann = append(ann, j.ID)
		}
	}
	assert.Equal(t, urgent, order[0])
	assert.ElementsMatch(t, []string{anns[0], bobs, nobodys}, order[1:4], "one of each")
	assert.Equal(t, anns, ann)
}

// Of an owner no more jobs run at once than are granted, whatever workers are idle, and
// others' go on beside them.
func TestAtOnce(t *testing.T) {
	q := jobstest.Open(t, jobs.Config{})
	for range 4 {
		submit(t, q, of(t, jobs.Owner{Name: "ann", AtOnce: 1}))
	}
	submit(t, q, of(t, jobs.Owner{Name: "bob"}))
	for range 2 {
		jobstest.Work(t, q, jobstest.Engine(t))
	}
	var last jobs.Job
	all := made(t, q)
	assert.Contains(t, []string{all[0].Owner, all[1].Owner}, "bob", "who waits for nobody of ann's")
	for _, j := range all {
		if j.Owner != "ann" {
			continue
		}
		if last.ID != "" {
			assert.False(t, j.Started.Before(*last.Finished), "%s began at %s, %s ended at %s", j.ID, j.Started,
				last.ID, last.Finished)
		}
		last = j
	}
}

// What is beyond a grant is refused, and says when there may be room.
func TestQuotas(t *testing.T) {
	ctx := context.Background()
	q := jobstest.Open(t, jobs.Config{MaxJobs: 4})
	refused := func(o jobs.Owner) *jobs.QuotaError {
		t.Helper()
		_, _, err := q.Submit(ctx, of(t, o))
		var quota *jobs.QuotaError
		require.ErrorAs(t, err, &quota)
		return quota
	}
	ann := jobs.Owner{Name: "ann"}
	submit(t, q, of(t, ann))
	j := submit(t, q, of(t, ann))
	assert.Contains(t, refused(ann).Error(), "2 jobs of ann wait or run") // half of the queue
	_, err := q.Cancel(ctx, j.ID)
	require.NoError(t, err)
	submit(t, q, of(t, ann))

	bob := jobs.Owner{Name: "bob", PixelsADay: int64(j.Width * j.Height * 3 / 2), Waiting: 10}
	submit(t, q, of(t, bob))
	quota := refused(bob)
	assert.Contains(t, quota.Error(), fmt.Sprintf("that bob may ask for a day %d are left", j.Width*j.Height/2))
	assert.Positive(t, quota.Retry)
	assert.LessOrEqual(t, quota.Retry, 24*time.Hour)
	// A job that was not made, since the queue is full, is not counted.
	carol := jobs.Owner{Name: "carol", PixelsADay: int64(j.Width * j.Height)}
	other := submit(t, q, of(t, jobs.Owner{}))
	keyed := of(t, carol)
	keyed.Key = "looked at though the queue is full"
	_, _, err = q.Submit(ctx, keyed)
	require.ErrorIs(t, err, jobs.ErrQueueFull)
	_, err = q.Cancel(ctx, other.ID)
	require.NoError(t, err)
	submit(t, q, keyed)
}

// Requests of one owner that come at once do not get by what may wait.
func TestQuotasAtOnce(t *testing.T) {
	q := jobstest.Open(t, jobs.Config{})
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		r := of(t, jobs.Owner{Name: "ann", Waiting: 2})
		all.Go(func() {
			if _, _, err := q.Submit(context.Background(), r); err == nil {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, 2, taken.Load())
}

// Who deletes finished jobs does not get more turns by that.
func TestTurnsAfterDeleting(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	first := submit(t, q, of(t, jobs.Owner{Name: "ann"}))
	stop := jobstest.Work(t, q, e)
	until(t, q, first.ID, finished)
	stop()
	_, gone, err := q.Delete(context.Background(), first.ID)
	require.NoError(t, err)
	require.True(t, gone)
	submit(t, q, of(t, jobs.Owner{Name: "ann"}))
	bobs := submit(t, q, of(t, jobs.Owner{Name: "bob"}))
	jobstest.Work(t, q, e)
	assert.Equal(t, bobs.ID, made(t, q)[0].ID, "none of his has begun")
}

// What owners' jobs wait in is as patient as the queue is now, and is made anew if it is
// lost.
func TestOwnersAreRenewed(t *testing.T) {
	ctx := context.Background()
	nc, js := connected(t)
	q, err := jobs.Open(ctx, nc, jobs.Config{Patience: 2 * time.Second})
	require.NoError(t, err)
	submit(t, q, of(t, jobs.Owner{Name: "ann", AtOnce: 3}))
	submit(t, q, of(t, jobs.Owner{Name: "bob"}))
	q.Close()
	consumers := func() (all []jetstream.ConsumerConfig) {
		stream, err := js.Stream(ctx, "NST_WORK")
		require.NoError(t, err)
		list := stream.ListConsumers(ctx)
		for info := range list.Info() {
			all = append(all, info.Config)
		}
		return all
	}
	for _, c := range consumers() {
		if assert.Equal(t, 2*time.Second, c.AckWait); c.MaxAckPending == 4096 && c.Durable != "workers" {
			require.NoError(t, js.DeleteConsumer(ctx, "NST_WORK", c.Durable))
		}
	}
	require.Len(t, consumers(), 2)
	q, err = jobs.Open(ctx, nc, jobs.Config{Patience: 20 * time.Second})
	require.NoError(t, err)
	t.Cleanup(q.Close)
	require.Len(t, consumers(), 3)
	granted := 0
	for _, c := range consumers() {
		assert.Equal(t, 20*time.Second, c.AckWait, c.Durable)
		granted += c.MaxAckPending
	}
	assert.Equal(t, 4096+4096+3, granted)
	jobstest.Work(t, q, jobstest.Engine(t))
	assert.Len(t, made(t, q), 2)
}

// Owners' keys are their own: one does not get another's job by its key.
func TestKeysAreTheOwners(t *testing.T) {
	q := jobstest.Open(t, jobs.Config{})
	first, second := of(t, jobs.Owner{Name: "ann"}), of(t, jobs.Owner{Name: "bob"})
	first.Key, second.Key = "k", "k"
	a, b := submit(t, q, first), submit(t, q, second)
	assert.NotEqual(t, a.ID, b.ID)
	again, created, err := q.Submit(context.Background(), first)
	require.NoError(t, err)
	assert.False(t, created)
	assert.Equal(t, a.ID, again.ID)
}

// A store in which an older program has made the work stream is gone on with.
func TestOlderStore(t *testing.T) {
	ctx := context.Background()
	nc, js := connected(t)
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "NST_WORK", Subjects: []string{"nst.work.*"},
		Retention: jetstream.WorkQueuePolicy, MaxMsgs: 100, Discard: jetstream.DiscardNew, Duplicates: 2 * time.Minute})
	require.NoError(t, err)
	_, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "workers",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: 15 * time.Second, MaxDeliver: -1, MaxAckPending: 4096})
	require.NoError(t, err)

	q, err := jobs.Open(ctx, nc, jobs.Config{})
	require.NoError(t, err)
	t.Cleanup(q.Close)
	old := submit(t, q, of(t, jobs.Owner{}))
	_, err = stream.GetLastMsgForSubject(ctx, "nst.work."+old.ID)
	require.NoError(t, err, "nobody's jobs are where older workers look")
	submit(t, q, of(t, jobs.Owner{Name: "ann"}))
	jobstest.Work(t, q, jobstest.Engine(t))
	assert.Len(t, made(t, q), 2)
}
