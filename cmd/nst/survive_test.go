package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// serving is nst serve in a process of its own, which the test may kill.
type serving struct {
	t    testing.TB
	args []string
	env  []string // of this process, if there is none
	url  string
	cmd  *exec.Cmd
	log  string
}

func startServing(t testing.TB, args ...string) *serving { return startServingWith(t, nil, args...) }

// startServingWith is startServing with another environment.
func startServingWith(t testing.TB, env []string, args ...string) *serving {
	address := nsttest.Address(t)
	s := &serving{t: t, env: env, url: "http://" + address, log: filepath.Join(t.TempDir(), "log"),
		args: append([]string{"serve", "--addr", address, "--data", filepath.Join(t.TempDir(), "data"), "--model",
			nsttest.Slim(t), "--device", "cpu"}, args...)}
	s.start()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		_ = s.cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(s.log)
			t.Logf("%s", text[max(0, len(text)-4000):])
		}
	})
	return s
}

func (s *serving) start() {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(s.t, err)
	defer log.Close()
	s.cmd = exec.Command(os.Args[0], s.args...)
	if s.env == nil {
		s.env = os.Environ()
	}
	s.cmd.Env = append(s.env, "OMP_NUM_THREADS=1") // with which a transfer is the same in every process
	s.cmd.Stderr = log
	require.NoError(s.t, s.cmd.Start())
	require.Eventually(s.t, func() bool {
		answer, err := http.Get(s.url + "/healthz")
		if err == nil {
			answer.Body.Close()
		}
		return err == nil
	}, time.Minute, 50*time.Millisecond)
}

func (s *serving) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// workers are the processes of the workers.
func (s *serving) workers() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if fields[1] == strconv.Itoa(s.cmd.Process.Pid) && fields[0] != "Z" {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func (s *serving) submit(options string) (location string) {
	parts := []any{}
	for part, path := range map[string]string{"content": nsttest.Content(s.t), "style": nsttest.Style(s.t)} {
		data, err := os.ReadFile(path)
		require.NoError(s.t, err)
		parts = append(parts, part, data)
	}
	body, kind := multipartForm(s.t, append(parts, "options", options)...)
	answer, err := http.Post(s.url+"/v1/jobs", kind, body)
	require.NoError(s.t, err)
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	require.Equal(s.t, 201, answer.StatusCode, string(text))
	return answer.Header.Get("Location")
}

// progress waits until jobs have gone on by so many iterations together.
func (s *serving) progress(by int) {
	all := false // is finished: a quick machine may be done before
	at := func() int {
		answer, err := http.Get(s.url + "/v1/jobs")
		if err != nil {
			return -1
		}
		defer answer.Body.Close()
		var list struct{ Jobs []jobs.Job }
		if json.NewDecoder(answer.Body).Decode(&list) != nil {
			return -1
		}
		all = !slices.ContainsFunc(list.Jobs, func(j jobs.Job) bool { return !j.State.Finished() })
		return jobstest.Progress(list.Jobs)
	}
	began := at()
	require.Eventually(s.t, func() bool { return at() >= began+by || all }, 2*time.Minute, 50*time.Millisecond)
}

// job asks for a job; ok says whether there was an answer.
func (s *serving) job(location string) (j jobs.Job, ok bool) {
	answer, err := http.Get(s.url + location)
	if err != nil {
		return j, false
	}
	defer answer.Body.Close()
	return j, answer.StatusCode == 200 && json.NewDecoder(answer.Body).Decode(&j) == nil
}

func (s *serving) result(location string) *picture.Picture {
	var j jobs.Job
	require.Eventually(s.t, func() bool {
		var ok bool
		j, ok = s.job(location)
		return ok && j.State.Finished()
	}, 5*time.Minute, 100*time.Millisecond)
	require.Equal(s.t, jobs.Done, j.State, j.Error)
	answer, err := http.Get(s.url + location + "/result")
	require.NoError(s.t, err)
	defer answer.Body.Close()
	p, err := picture.Decode(answer.Body)
	require.NoError(s.t, err)
	return p
}

// The API's process, and with it the store, and the workers' are killed at random; every
// job is made, as if nothing had happened. NST_KILLS says how often, NST_SEED which.
func TestServeSurvives(t *testing.T) {
	nsttest.Long(t)
	kills := 6
	if text := os.Getenv("NST_KILLS"); text != "" {
		kills, _ = strconv.Atoi(text)
	}
	random := rand.New(rand.NewPCG(nsttest.Seed(t), 0))
	s := startServing(t, "--workers", "2", "--patience", "2s", "--checkpoint-every", "250ms")
	kinds := []string{`{"size":96,"iterations":30,"scales":"64,96"}`,
		`{"size":96,"iterations":40,"scales":"off","optimizer":"adam","init":"noise","seed":7}`}
	var want []*picture.Picture
	for _, options := range kinds {
		want = append(want, s.result(s.submit(options)))
	}
	var all []string
	for i := range max(6, kills) {
		all = append(all, s.submit(kinds[i%2]))
	}
	killed := map[string]int{}
	for range kills {
		s.progress(1 + random.IntN(20))
		pids := s.workers()
		if random.IntN(4) == 0 || len(pids) == 0 {
			killed["API and store"]++
			s.kill()
			s.start()
			continue
		}
		killed["worker"]++
		require.NoError(t, syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL))
		answer, err := http.Get(s.url + "/healthz")
		require.NoError(t, err, "the API outlives its workers")
		answer.Body.Close()
	}
	attempts := 0
	for i, location := range all {
		assert.Equal(t, want[i%2], s.result(location), location)
		j, _ := s.job(location)
		attempts += j.Attempts
	}
	t.Logf("%d jobs took %d attempts; killed: %v", len(all), attempts, killed)
	assert.Greater(t, attempts, len(all), "nobody noticed")
}

// The API's process stays small, however many jobs there are and clients follow them.
// NST_JOBS and NST_CLIENTS say how many.
func TestManyJobs(t *testing.T) {
	nsttest.Long(t)
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	count, clients := number("NST_JOBS", 200), number("NST_CLIENTS", 40)
	s := startServing(t, "--workers", "0", "--max-jobs", strconv.Itoa(count+1))
	var all []string
	for range count {
		all = append(all, s.submit(`{"size":64}`))
	}
	var working sync.WaitGroup
	stop := make(chan struct{})
	for i := range clients {
		working.Go(func() {
			answer, err := http.Get(s.url + all[i%count] + "/events")
			if !assert.NoError(t, err) {
				return
			}
			defer answer.Body.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, path := range []string{"/v1/jobs", all[i%count], all[i%count] + "/content"} {
					one, err := http.Get(s.url + path)
					if assert.NoError(t, err) {
						_, _ = io.Copy(io.Discard, one.Body)
						one.Body.Close()
						assert.Equal(t, 200, one.StatusCode)
					}
				}
			}
		})
	}
	most := 0
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		most = max(most, residentMB(t, s.cmd.Process.Pid))
	}
	close(stop)
	working.Wait()
	t.Logf("%d jobs, %d clients: %d MB at most", count, clients, most)
	assert.Less(t, most, 150)
}

func residentMB(t *testing.T, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib := 0
	_, _ = fmt.Sscan(rest, &kib)
	return kib >> 10
}

// A worker whose parent is killed ends too.
func TestChildrenEnd(t *testing.T) {
	nsttest.Long(t)
	s := startServing(t)
	require.Eventually(t, func() bool { return len(s.workers()) == 1 }, 10*time.Second, 20*time.Millisecond)
	pid := s.workers()[0]
	s.kill()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, time.Minute, 50*time.Millisecond)
	s.start()
}

// multipartForm is a form of parts: names, and text or files.
func multipartForm(t testing.TB, parts ...any) (body *bytes.Buffer, kind string) {
	body = &bytes.Buffer{}
	boundary := fmt.Sprintf("b%016x", rand.Uint64())
	for i := 0; i < len(parts); i += 2 {
		fmt.Fprintf(body, "--%s\r\nContent-Disposition: form-data; name=%q", boundary, parts[i])
		switch data := parts[i+1].(type) {
		case string:
			fmt.Fprintf(body, "\r\n\r\n%s\r\n", data)
		case []byte:
			fmt.Fprintf(body, "; filename=\"x\"\r\n\r\n")
			body.Write(data)
			body.WriteString("\r\n")
		default:
			t.Fatalf("a part of type %T", data)
		}
	}
	fmt.Fprintf(body, "--%s--\r\n", boundary)
	return body, "multipart/form-data; boundary=" + boundary
}
