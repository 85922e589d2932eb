// Package jobstest is what tests of the queue and of its service share: a queue on
// a server of its own, a worker, and pictures. Programs do not import it.
package jobstest

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// Open starts a server and opens a queue on it, until the test ends, which is to be
// idle then.
func Open(t testing.TB, c jobs.Config) *jobs.Queue {
	t.Helper()
	nsttest.Idle(t)
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	nc, err := server.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	q, err := jobs.Open(context.Background(), nc, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

// Engine opens an engine on the CPU, with a network that is small, until the test ends.
func Engine(t testing.TB, options ...nst.OpenOptions) *nst.Engine {
	t.Helper()
	return EngineOf(t, nsttest.Slim(t), options...)
}

// EngineOf is Engine with a network of one's own.
func EngineOf(t testing.TB, model string, options ...nst.OpenOptions) *nst.Engine {
	t.Helper()
	o := nst.OpenOptions{}
	if len(options) > 0 {
		o = options[0]
	}
	o.Device = "cpu"
	e, err := nst.Open(context.Background(), model, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Progress is how far jobs are together, for a test that waits until they have gone on: in
// iterations of those that run, and more than any has for each that is finished.
func Progress(all []jobs.Job) (sum int) {
	for _, j := range all {
		if j.State == jobs.Running && j.Progress != nil {
			sum += j.Progress.Iteration
		} else if j.State.Finished() {
			sum += 100
		}
	}
	return sum
}

// Work has a worker work until stop is called, or the test ends.
func Work(t testing.TB, q *jobs.Queue, e *nst.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := q.Work(ctx, e, ""); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	t.Cleanup(stop)
	return stop
}

// Content is the file of nsttest.Content.
func Content(t testing.TB) []byte { return read(t, nsttest.Content(t)) }

// Style is the file of nsttest.Style.
func Style(t testing.TB) []byte { return read(t, nsttest.Style(t)) }

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
