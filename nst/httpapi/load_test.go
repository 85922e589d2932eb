package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// load has clients poll the status of a job, each ten times a second, and others
// submit, each again as soon as it is answered or as Retry-After says, until ctx is
// done. It returns how long status calls took, and how many answers of each status
// there were.
func load(ctx context.Context, s *service, polling, submitting int) (took []time.Duration, statuses map[int]int) {
	statuses = map[int]int{}
	var mutex sync.Mutex
	var all sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: polling + submitting}}
	defer client.CloseIdleConnections()
	ask := func(r *http.Request) (int, http.Header, []byte) {
		answer, err := client.Do(r)
		if err != nil {
			if ctx.Err() == nil {
				mutex.Lock()
				statuses[-1]++
				mutex.Unlock()
			}
			return -1, nil, nil
		}
		defer answer.Body.Close()
		data, _ := io.ReadAll(answer.Body)
		mutex.Lock()
		statuses[answer.StatusCode]++
		mutex.Unlock()
		return answer.StatusCode, answer.Header, data
	}
	running := s.job(`{"size":128,"iterations":20000,"scales":"off"}`)
	for i := range polling {
		all.Go(func() {
			wait(ctx, time.Duration(i)*100*time.Millisecond/time.Duration(polling))
			for ctx.Err() == nil {
				r, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/jobs/"+running, nil)
				began := time.Now()
				if status, _, _ := ask(r); status == 200 {
					mutex.Lock()
					took = append(took, time.Since(began))
					mutex.Unlock()
				}
				wait(ctx, 100*time.Millisecond)
			}
		})
	}
	body, kind := form(s.t, "options", `{"size":64,"iterations":1}`, "content", jobstest.Content(s.t),
		"style", jobstest.Style(s.t))
	for range submitting {
		all.Go(func() {
			for ctx.Err() == nil {
				r, _ := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/jobs", bytes.NewReader(body.Bytes()))
				r.Header.Set("Content-Type", kind)
				if status, _, _ := ask(r); status == 429 {
					wait(ctx, time.Second)
				}
			}
		})
	}
	all.Wait()
	return took, statuses
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Under load there is no error but that the queue is full.
func TestLoad(t *testing.T) {
	nsttest.Long(t)
	s := serve(t, true, jobs.Config{MaxJobs: 30}, httpapi.Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	took, statuses := load(ctx, s, 200, 20)
	assert.NotEmpty(t, took)
	for status, n := range statuses {
		assert.Contains(t, []int{200, 201, 429}, status, "%d times", n)
	}
}

// BenchmarkLoad is a minute of 200 clients that poll and 20 that submit, while a
// job runs; -benchtime 1x is enough. On the 2-core machine (AMD EPYC, the worker on
// the same cores), 115,826 calls:
//
//	BenchmarkLoad-2  1  60014612286 ns/op  1.276 p50-ms  34.94 p99-ms
func BenchmarkLoad(b *testing.B) {
	s := serve(b, true, jobs.Config{MaxJobs: 100}, httpapi.Config{}, nst.OpenOptions{LowPriority: true})
	for b.Loop() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		took, statuses := load(ctx, s, 200, 20)
		cancel()
		slices.Sort(took)
		require.NotEmpty(b, took)
		b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
		b.ReportMetric(float64(took[len(took)/2])/1e6, "p50-ms")
		b.ReportMetric(float64(len(took)), "calls")
		b.Logf("answers: %v", statuses)
	}
}

// A service that has made many jobs, and forgotten them, takes no more memory.
func TestSoak(t *testing.T) {
	nsttest.Long(t)
	s := serve(t, true, jobs.Config{MaxJobs: 300}, httpapi.Config{})
	var small bytes.Buffer
	require.NoError(t, picture.New(48, 48).Encode(&small, picture.PNG, picture.Encoding{}))
	run := func(n int) {
		var ids []string
		for range n {
			ids = append(ids, s.jobOf(`{"size":32,"iterations":2,"scales":"off","init":"noise"}`, small.Bytes(),
				small.Bytes()))
		}
		for _, id := range ids {
			j := s.until(id, func(j jobs.Job) bool { return j.State.Finished() })
			require.Equal(t, jobs.Done, j.State, j.Error)
			r, err := http.NewRequest("DELETE", s.url+"/v1/jobs/"+id, nil)
			require.NoError(t, err)
			status, _, _ := s.do(r)
			require.Equal(t, 204, status)
		}
	}
	resident := func() int64 {
		debug.FreeOSMemory() // what is only not collected yet is no leak
		m, err := torch.MemoryOf(torch.CPU)
		require.NoError(t, err)
		return m.Allocated
	}
	run(40)
	before, tensors := resident(), torch.Live()
	run(40)
	middle := resident()
	run(40)
	after := resident()
	t.Logf("resident after 40, 80 and 120 jobs: %d, %d and %d MB", before>>20, middle>>20, after>>20)
	assert.Less(t, after-before, int64(30<<20))
	assert.Equal(t, tensors, torch.Live())
	var list struct{ Total int }
	_, _, body := s.get("/v1/jobs")
	require.NoError(t, json.Unmarshal(body, &list))
	assert.Zero(t, list.Total)
}
