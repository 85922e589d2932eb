package jobs

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

func read(t *testing.T, path string) []byte {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

func submit(t *testing.T, q *Queue, iterations int) Job {
	j, _, err := q.Submit(context.Background(), Request{Content: read(t, nsttest.Content(t)),
		Styles:  [][]byte{read(t, nsttest.Style(t))},
		Options: nst.Options{Size: new(32), Iterations: &iterations}})
	require.NoError(t, err)
	return j
}

// work has a worker work until the test ends.
func work(t *testing.T, q *Queue) {
	e, err := nst.Open(context.Background(), nsttest.Model(t), nst.OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Work(ctx, e, "") }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
		e.Close()
	})
}

func finished(t *testing.T, q *Queue, id string) (j Job) {
	require.Eventually(t, func() bool {
		var err error
		j, err = q.Get(context.Background(), id)
		return err == nil && j.State.Finished()
	}, time.Minute, 20*time.Millisecond)
	return j
}

// corrupt puts other bytes in the place of an object's.
func corrupt(t *testing.T, q *Queue, id, name string) {
	ctx := context.Background()
	info, err := q.objects.GetInfo(ctx, object(id, name))
	require.NoError(t, err)
	store, err := q.js.Stream(ctx, objectStream)
	require.NoError(t, err)
	require.NoError(t, store.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject+info.NUID)))
	_, err = q.js.Publish(ctx, chunkSubject+info.NUID, make([]byte, info.Size))
	require.NoError(t, err)
}

// A picture that is lost or damaged is the end of its job, which says so, and not the
// end of what is said of the job.
func TestLostPictures(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{})
	lost, damaged, whole, empty := submit(t, q, 1), submit(t, q, 1), submit(t, q, 1), submit(t, q, 1)
	info, err := q.objects.GetInfo(ctx, object(empty.ID, "content")) // is there, what is in it is not
	require.NoError(t, err)
	store, err := q.js.Stream(ctx, objectStream)
	require.NoError(t, err)
	require.NoError(t, store.Purge(ctx, jetstream.WithPurgeSubject(chunkSubject+info.NUID)))
	require.NoError(t, q.objects.Delete(ctx, object(lost.ID, "style-1")))
	corrupt(t, q, damaged.ID, "content")
	work(t, q)
	j := finished(t, q, lost.ID)
	assert.Equal(t, Failed, j.State)
	assert.Equal(t, "the style-1 picture: is gone from the store", j.Error)
	j = finished(t, q, damaged.ID)
	assert.Equal(t, Failed, j.State)
	assert.Contains(t, j.Error, "the content picture: what the store has of it is damaged")
	assert.Equal(t, Failed, finished(t, q, empty.ID).State)
	assert.Equal(t, Done, finished(t, q, whole.ID).State)
}

// Whatever a job wants of memory beyond its limit, three tries are all.
func TestTooLittleMemory(t *testing.T) {
	nsttest.Long(t)
	q := openQueue(t, Config{})
	iterations := 3
	j, _, err := q.Submit(context.Background(), Request{Content: read(t, nsttest.Content(t)),
		Styles:  [][]byte{read(t, nsttest.Style(t))},
		Options: nst.Options{Size: new(64), Iterations: &iterations, MemoryLimit: 1}})
	require.NoError(t, err)
	work(t, q)
	j = finished(t, q, j.ID)
	assert.Equal(t, Failed, j.State)
	assert.Contains(t, j.Error, "out of memory")
	assert.Len(t, j.Failures, maxFailures)
}

// A start looks whether all is there, and names what is not; a check looks into it.
func TestVerify(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, Config{})
	lost, damaged, whole := submit(t, q, 1), submit(t, q, 1), submit(t, q, 1)
	require.NoError(t, q.objects.Delete(ctx, object(lost.ID, "content")))
	corrupt(t, q, damaged.ID, "style-1")
	require.NoError(t, q.write(ctx, strings.Repeat("a", 26), "content", strings.NewReader("x")))
	said, err := q.Verify(ctx, false)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{
		"job " + lost.ID + ": the content picture was lost from the store",
		"job " + strings.Repeat("a", 26) + " has pictures and no record: its record was lost, or it is being made",
	}, said)
	said, err = q.Verify(ctx, true)
	require.NoError(t, err)
	assert.Contains(t, said, "job "+damaged.ID+": the style-1 picture is damaged in the store")
	for _, id := range []string{lost.ID, damaged.ID} {
		j, err := q.load(ctx, id)
		require.NoError(t, err)
		assert.Equal(t, Failed, j.State)
	}
	j, err := q.load(ctx, whole.ID)
	require.NoError(t, err)
	assert.Equal(t, Queued, j.State)
}

// Attempts without a newer checkpoint are counted, wherever workers die.
func TestDeathsWithoutCheckpoints(t *testing.T) {
	j := Job{State: Running}
	for i := range maxDeaths - 1 {
		j.Progress = &Progress{Iteration: 10 + i} // a little further each time
		require.False(t, j.vanished(""))
	}
	for range maxDeaths - 1 {
		require.False(t, j.vanished("a"))
	}
	require.True(t, j.vanished("a"))
	assert.Equal(t, Failed, j.State)
	assert.Contains(t, j.Error, "workers vanished 5 times in a row while they had it, without keeping a newer "+
		"state, the last one after iteration 13")
}

// Records of a newer program are left alone, older ones are read.
func TestVersions(t *testing.T) {
	ctx := context.Background()
	var log bytes.Buffer
	q := openQueue(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	put := func(id string, version int) {
		value, err := json.Marshal(Job{ID: id, State: Done, Version: version})
		require.NoError(t, err)
		_, err = q.records.Put(ctx, id, value)
		require.NoError(t, err)
	}
	older, newer := strings.Repeat("b", 26), strings.Repeat("c", 26)
	put(newer, version+1)
	put(older, 0)
	require.Eventually(t, func() bool { return len(q.List()) == 1 }, 5*time.Second, 10*time.Millisecond)
	assert.Equal(t, older, q.List()[0].ID)
	_, err := q.Get(ctx, newer)
	assert.ErrorIs(t, err, errVersion)
	assert.Contains(t, log.String(), newer)
}

// Room is kept for all jobs that are not finished.
func TestRoomIsReserved(t *testing.T) {
	q := openQueue(t, Config{MaxBytes: 6 << 20})
	j := submit(t, q, 1)
	assert.Positive(t, j.Reserved)
	var err error
	for range 20 {
		_, _, err = q.Submit(context.Background(), Request{Content: read(t, nsttest.Content(t)),
			Styles: [][]byte{read(t, nsttest.Style(t))}, Options: nst.Options{Size: new(32)}})
		if err != nil {
			break
		}
	}
	assert.ErrorIs(t, err, ErrNoSpace)
}

// throttled is a connection through which the server's answers come so slowly.
func throttled(t *testing.T, url string, bytesPerSecond int) string {
	at := strings.LastIndex(url, "@")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", url[at+1:])
			if err != nil {
				client.Close()
				return
			}
			go func() { _, _ = io.Copy(server, client); server.Close() }()
			go func() {
				defer client.Close()
				buffer, began, sent := make([]byte, 32<<10), time.Now(), 0
				for {
					n, err := server.Read(buffer)
					if n > 0 {
						if _, err := client.Write(buffer[:n]); err != nil {
							server.Close()
							return
						}
						sent += n
						due := time.Duration(sent) * time.Second / time.Duration(bytesPerSecond)
						time.Sleep(time.Until(began.Add(due)))
					}
					if err != nil {
						return
					}
				}
			}()
		}
	}()
	return url[:at+1] + l.Addr().String()
}

// What is large is read however long it takes: here longer than the five seconds that
// nats.go has for a whole object.
func TestSlowLink(t *testing.T) {
	nsttest.Long(t)
	ctx := context.Background()
	nsttest.Idle(t)
	server, err := StartServer(ServerConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	near, err := server.Connect()
	require.NoError(t, err)
	t.Cleanup(near.Close)
	q, err := Open(ctx, near, Config{})
	require.NoError(t, err)
	t.Cleanup(q.Close)
	data := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	require.NoError(t, q.write(ctx, "job", "checkpoint", bytes.NewReader(data)))
	far, err := Connect(ctx, throttled(t, server.URL(), 9<<20))
	require.NoError(t, err)
	t.Cleanup(far.Close)
	other, err := Open(ctx, far, Config{Join: true})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	began := time.Now()
	got, err := other.read(ctx, "job", "checkpoint")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, got))
	assert.Greater(t, time.Since(began), 5*time.Second, "the link is slow")
}
