package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// A store whose files are damaged is not waited for: Open says which stream it is, and goes on
// with what is whole if it is told to.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]struct {
		stream, at string // the last place of a text in the stream's newest file, JOB being the job's
		cut        bool   // the file ends there; else eight bytes behind it are changed
		lost       string // what the error names
		jobs       int    // that are there after repair
	}{
		"a record is changed":       {"KV_nst-jobs", "$KV.nst-jobs.JOB", false, "$KV.nst-jobs.JOB", 2},
		"records are cut off":       {"KV_nst-jobs", "$KV.nst-jobs.JOB", true, "what was written last", 2},
		"a picture's name":          {"OBJ_nst-pictures", "$O.nst-pictures.M.", false, "$O.nst-pictures.M.", 3},
		"the beginning of messages": {"NST_WORK", "nst.work.JOB", false, "nst.work.JOB", 3},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open := func(c jobs.Config) (q *jobs.Queue, close func(), err error) {
				server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
				require.NoError(t, err)
				nc, err := server.Connect()
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				c.Dir = dir
				q, err = jobs.Open(ctx, nc, c)
				return q, func() {
					if q != nil {
						q.Close()
					}
					cancel()
					nc.Close()
					server.Close()
				}, err
			}
			q, close, err := open(jobs.Config{})
			require.NoError(t, err)
			var last jobs.Job
			for range 3 {
				last = submit(t, q, request(t, 64, 6))
			}
			close()

			files, err := filepath.Glob(filepath.Join(dir, "jetstream/*/streams", damage.stream, "msgs/*.blk"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			path := files[len(files)-1]
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			place := func(text string) string {
				return string(bytes.ReplaceAll([]byte(text), []byte("JOB"), []byte(last.ID)))
			}
			at := bytes.LastIndex(data, []byte(place(damage.at)))
			require.Positive(t, at)
			at += len(place(damage.at))
			if damage.cut {
				data = data[:at]
			} else {
				for i := range 8 {
					data[at+i] ^= 0xff
				}
			}
			require.NoError(t, os.WriteFile(path, data, 0o600))

			q, close, err = open(jobs.Config{})
			close()
			var damaged *jobs.DamageError
			require.ErrorAs(t, err, &damaged)
			assert.Equal(t, damage.stream, damaged.Stream)
			assert.ErrorContains(t, err, place(damage.lost))
			assert.Nil(t, q)
			q, close, err = open(jobs.Config{Repair: true})
			require.NoError(t, err)
			assert.Len(t, q.List(), damage.jobs)
			submit(t, q, request(t, 64, 6))
			close()
			q, close, err = open(jobs.Config{})
			require.NoError(t, err)
			assert.Len(t, q.List(), damage.jobs+1)
			close()
		})
	}
}

// A repair that was ended in its midst is gone on with, whatever Open is told: from the damaged
// stream, if the copy was not whole yet, and else from the copy.
func TestRepairGoesOn(t *testing.T) {
	const stream = "KV_nst-jobs"
	for name, whole := range map[string]bool{"before the copy is whole": false, "after the stream is deleted": true} {
		t.Run(name, func(t *testing.T) {
			ctx, dir := t.Context(), t.TempDir()
			server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
			require.NoError(t, err)
			defer server.Close()
			nc, err := server.Connect()
			require.NoError(t, err)
			defer nc.Close()
			q, err := jobs.Open(ctx, nc, jobs.Config{Dir: dir})
			require.NoError(t, err)
			for range 3 {
				submit(t, q, request(t, 64, 6))
			}
			before := q.List()
			q.Close()

			js, err := jetstream.New(nc)
			require.NoError(t, err)
			damaged, err := js.Stream(ctx, stream)
			require.NoError(t, err)
			info := damaged.CachedInfo()
			_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "REPAIR_" + stream,
				Subjects: []string{"repair." + stream + ".>", "repaired." + stream}})
			require.NoError(t, err)
			for n := info.State.FirstSeq; whole && n <= info.State.LastSeq; n++ {
				if m, err := damaged.GetMsg(ctx, n); err == nil {
					_, err = js.Publish(ctx, "repair."+stream+"."+m.Subject, m.Data)
					require.NoError(t, err)
				}
			}
			if whole {
				data, err := json.Marshal(map[string]any{"Config": info.Config, "Next": info.State.LastSeq + 1})
				require.NoError(t, err)
				_, err = js.Publish(ctx, "repaired."+stream, data)
				require.NoError(t, err)
				require.NoError(t, js.DeleteStream(ctx, stream))
			}

			q, err = jobs.Open(ctx, nc, jobs.Config{Dir: dir})
			require.NoError(t, err)
			defer q.Close()
			after := q.List()
			require.Len(t, after, len(before))
			for i := range after {
				assert.Equal(t, before[i].ID, after[i].ID)
			}
			_, err = js.Stream(ctx, "REPAIR_"+stream)
			assert.ErrorIs(t, err, jetstream.ErrStreamNotFound)
			if whole {
				made, err := js.Stream(ctx, stream)
				require.NoError(t, err)
				assert.Greater(t, made.CachedInfo().State.FirstSeq, info.State.LastSeq, "numbers are used once")
			}
			jobstest.Work(t, q, jobstest.Engine(t))
			until(t, q, after[0].ID, finished)
		})
	}
}

// After a disk that was full the queue works again by itself. Here its files are /dev/full for a
// while.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
	require.NoError(t, err)
	defer server.Close()
	nc, err := server.Connect()
	require.NoError(t, err)
	defer nc.Close()
	q, err := jobs.Open(context.Background(), nc, jobs.Config{})
	require.NoError(t, err)
	defer q.Close()
	first := submit(t, q, request(t, 64, 6))

	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	require.NoError(t, err)
	defer full.Close()
	filled := 0
	descriptors, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, d := range descriptors {
		path, _ := os.Readlink(filepath.Join("/proc/self/fd", d.Name()))
		if strings.HasPrefix(path, dir) && strings.HasSuffix(path, ".blk") {
			fd, err := strconv.Atoi(d.Name())
			require.NoError(t, err)
			require.NoError(t, unix.Dup3(int(full.Fd()), fd, unix.O_CLOEXEC))
			filled++
		}
	}
	require.Positive(t, filled)
	try := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, _, err := q.Submit(ctx, request(t, 64, 6))
		return err
	}
	require.Error(t, try())
	require.Eventually(t, func() bool { return try() == nil }, 2*time.Minute, 100*time.Millisecond)
	all := q.List()
	assert.GreaterOrEqual(t, len(all), 2)
	assert.Equal(t, first.ID, all[len(all)-1].ID)
	jobstest.Work(t, q, jobstest.Engine(t))
	until(t, q, all[0].ID, finished)
}
