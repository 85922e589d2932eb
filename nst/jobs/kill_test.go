package jobs_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// The tests' program is also the processes that they kill: role says which, and the
// rest of the environment how.
const role = "NST_TEST_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "worker":
		err = workerProcess()
	case "server":
		_, err = jobs.StartServer(jobs.ServerConfig{Dir: os.Getenv("NST_TEST_DIR"), Listen: os.Getenv("NST_TEST_ADDR")})
	case "node":
		err = nodeProcess()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

// hasty is a configuration for workers that are often killed.
func hasty(replicas int) jobs.Config {
	return jobs.Config{Replicas: replicas, Patience: 2 * time.Second, CheckpointEvery: 250 * time.Millisecond}
}

func workerProcess() error {
	ctx := context.Background()
	nc, err := jobs.Connect(ctx, os.Getenv("NST_TEST_URL"))
	if err != nil {
		return err
	}
	c := jobs.Config{Join: true, CheckpointEvery: hasty(1).CheckpointEvery}
	device := "cpu"
	if os.Getenv(hangs) != "" {
		device, c.Stall = "pretend:1", time.Second
	}
	q, err := jobs.Open(ctx, nc, c)
	if err != nil {
		return err
	}
	e, err := nst.Open(ctx, os.Getenv("NST_TEST_MODEL"), nst.OpenOptions{Device: device})
	if err != nil {
		return err
	}
	if os.Getenv(hangs) != "" {
		if _, err := torch.ControlDevice("slow", time.Hour.Microseconds()); err != nil {
			return err
		}
	}
	return q.Work(ctx, e, "")
}

// hangs has a worker's device hang in its first operation.
const hangs = "NST_TEST_HANGS"

// A transfer that hangs in libtorch, which nothing can interrupt, is not its job's end: the
// worker's process ends, and another worker makes the job.
func TestStuck(t *testing.T) {
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir(), Listen: nsttest.Address(t)})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	f := newFarm(t, server.URL(), 1, 0)
	j := f.submit(request(t, 32, 2))
	library := filepath.Join(nsttest.Root(t), "build", "lib", "libpretend.so")
	stuck := f.worker(hangs+"=yes", "NST_DEVICE_LIBRARY="+library)
	var exit *exec.ExitError
	require.ErrorAs(t, stuck.cmd.Wait(), &exit)
	assert.Equal(t, 1, exit.ExitCode())
	got, err := f.queue.Get(context.Background(), j.ID)
	require.NoError(t, err)
	assert.Equal(t, jobs.Running, got.State, "nobody has said otherwise")
	f.worker()
	got = until(t, f.queue, j.ID, finished)
	assert.Equal(t, jobs.Done, got.State, got.Error)
	assert.Equal(t, 2, got.Attempts)
	assert.Equal(t, 1, got.Deaths)
}

// nodeProcess is a node of a cluster of NATS servers.
func nodeProcess() error {
	port := func(name string) int { n, _ := strconv.Atoi(os.Getenv(name)); return n }
	o := &server.Options{
		ServerName: os.Getenv("NST_TEST_NAME"), Host: "127.0.0.1", Port: port("NST_TEST_PORT"),
		NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: os.Getenv("NST_TEST_DIR"),
		Cluster: server.ClusterOpts{Name: "nst", Host: "127.0.0.1", Port: port("NST_TEST_ROUTE")},
	}
	for r := range strings.SplitSeq(os.Getenv("NST_TEST_ROUTES"), ",") {
		u, err := url.Parse("nats://127.0.0.1:" + r)
		if err != nil {
			return err
		}
		o.Routes = append(o.Routes, u)
	}
	s, err := server.NewServer(o)
	if err == nil {
		s.Start()
	}
	return err
}

// process is one that the test may kill.
type process struct {
	t   testing.TB
	env []string
	cmd *exec.Cmd
}

// start starts this program in another role. It computes with one thread, with
// which a transfer is the same in every process.
func start(t testing.TB, what string, env ...string) *process {
	p := &process{t: t, env: append(append(os.Environ(), role+"="+what, "OMP_NUM_THREADS=1"), env...)}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env, p.cmd.Stderr = p.env, os.Stderr
	require.NoError(p.t, p.cmd.Start())
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // SIGKILL
	_ = p.cmd.Wait()
}

func (p *process) restart() { p.kill(); p.start() }

// port is held for a server of this test.
func port(t testing.TB) string {
	_, port, _ := net.SplitHostPort(nsttest.Address(t))
	return port
}

// kinds are requests that differ in all that a checkpoint holds.
func kinds(t testing.TB) (all []jobs.Request) {
	for i, o := range []nst.Options{
		{Scales: "64,96", Optimizer: nst.LBFGS}, {Scales: nst.ScalesOff, Optimizer: nst.Adam, Start: nst.StartNoise,
			Seed: 7},
		{Scales: nst.ScalesOff, Optimizer: nst.LBFGS, Color: nst.ColorContent}, {Scales: "64,96", Optimizer: nst.Adam},
	} {
		r := request(t, 96, 100+3*i)
		o.Size, o.Iterations = r.Options.Size, r.Options.Iterations
		r.Options = o
		all = append(all, r)
	}
	return all
}

// farm is processes and the queue that they share.
type farm struct {
	t       testing.TB
	url     string
	model   string
	queue   *jobs.Queue
	workers []*process
}

func newFarm(t testing.TB, natsURL string, replicas, workers int) *farm {
	nc, err := jobs.Connect(context.Background(), natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q, err := jobs.Open(ctx, nc, hasty(replicas))
	require.NoError(t, err)
	t.Cleanup(q.Close)
	f := &farm{t: t, url: natsURL, model: nsttest.Slim(t), queue: q}
	for range workers {
		f.workers = append(f.workers, f.worker())
	}
	return f
}

func (f *farm) worker(env ...string) *process {
	return start(f.t, "worker", append(env, "NST_TEST_URL="+f.url, "NST_TEST_MODEL="+f.model)...)
}

// make submits n jobs of the kinds in turn, does what harms them while they run,
// and returns their pictures.
func (f *farm) make(n int, harm func(done chan struct{})) (pictures []*picture.Picture, attempts int) {
	t, ctx := f.t, context.Background()
	requests := kinds(t)
	var ids []string
	for i := range n {
		ids = append(ids, f.submit(requests[i%len(requests)]).ID)
	}
	done := make(chan struct{})
	var harming sync.WaitGroup
	harming.Go(func() { harm(done) })
	for _, id := range ids {
		j := until(t, f.queue, id, finished)
		require.Equal(t, jobs.Done, j.State, "%+v", j)
		attempts += j.Attempts
	}
	close(done)
	harming.Wait()
	for _, id := range ids {
		var data []byte
		require.Eventually(t, func() (ok bool) {
			var err error
			data, err = f.queue.Picture(ctx, id, "result")
			return err == nil
		}, 30*time.Second, 100*time.Millisecond)
		p, err := picture.Decode(bytes.NewReader(data))
		require.NoError(t, err)
		pictures = append(pictures, p)
	}
	return pictures, attempts
}

// progress waits until the jobs have gone on by so many iterations together; false: all
// were done before.
func (f *farm) progress(by int, done chan struct{}) bool {
	at := func() int { return jobstest.Progress(f.queue.List()) }
	for began := at(); at() < began+by; {
		select {
		case <-done:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return true
}

// submit tries again while a server is away, with a key.
func (f *farm) submit(r jobs.Request) (j jobs.Job) {
	r.Key = fmt.Sprint(rand.Uint64())
	require.Eventually(f.t, func() (ok bool) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var err error
		j, _, err = f.queue.Submit(ctx, r)
		return err == nil
	}, time.Minute, 200*time.Millisecond)
	return j
}

func same(t *testing.T, want, got []*picture.Picture) {
	for i, p := range got {
		assert.Equal(t, want[i%len(want)], p, "job %d", i)
	}
}

func nothing(chan struct{}) {}

// Workers are killed again and again while jobs are made, and then the server;
// every job is made all the same, and as if nothing had happened.
func TestNothingIsLostByKilling(t *testing.T) {
	nsttest.Long(t)
	dir, random := t.TempDir(), rand.New(rand.NewPCG(nsttest.Seed(t), 0))
	nats := start(t, "server", "NST_TEST_DIR="+dir, "NST_TEST_ADDR="+nsttest.Address(t))
	require.Eventually(t, func() bool { _, err := os.Stat(dir + "/" + jobs.URLFile); return err == nil },
		20*time.Second, 50*time.Millisecond)
	natsURL, err := os.ReadFile(dir + "/" + jobs.URLFile)
	require.NoError(t, err)
	f := newFarm(t, strings.TrimSpace(string(natsURL)), 1, 2)
	want, attempts := f.make(4, nothing)
	require.Equal(t, 4, attempts)

	kills := 0
	got, attempts := f.make(10, func(done chan struct{}) {
		for kills < 5 && f.progress(1+random.IntN(25), done) {
			f.workers[kills%2].restart()
			kills++
		}
	})
	assert.Greater(t, kills, 2)
	t.Logf("10 jobs took %d attempts, killed %d times", attempts, kills)
	assert.Greater(t, attempts, 10)
	same(t, want, got)

	kills = 0
	got, _ = f.make(6, func(done chan struct{}) {
		for kills < 2 && f.progress(1+random.IntN(20), done) {
			nats.restart()
			kills++
		}
	})
	assert.Positive(t, kills)
	same(t, want, got)
}

// Of a cluster of three servers one is stopped.
func TestClusterLosesANode(t *testing.T) {
	nsttest.Long(t)
	var ports, routes []string
	for range 3 {
		ports, routes = append(ports, port(t)), append(routes, port(t))
	}
	var nodes []*process
	var urls []string
	for i := range 3 {
		nodes = append(nodes, start(t, "node", "NST_TEST_NAME=node"+strconv.Itoa(i), "NST_TEST_DIR="+t.TempDir(),
			"NST_TEST_PORT="+ports[i], "NST_TEST_ROUTE="+routes[i], "NST_TEST_ROUTES="+strings.Join(routes, ",")))
		urls = append(urls, "nats://127.0.0.1:"+ports[i])
	}
	f := newFarm(t, strings.Join(urls, ","), 3, 2)
	want, _ := f.make(4, nothing)
	killed := false
	got, _ := f.make(8, func(done chan struct{}) {
		if killed = f.progress(10, done); killed {
			nodes[0].kill()
		}
	})
	assert.True(t, killed, "in the middle")
	same(t, want, got)
}
