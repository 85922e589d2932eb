package jobs_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
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
