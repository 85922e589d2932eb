package jobs_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

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
		lost       string // what the error names; empty: the store is the server's to mend
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
