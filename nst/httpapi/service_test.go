package httpapi_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/httpapi/client"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// answers are what a service says, of which some are lost.
type answers struct {
	http.ResponseWriter
	lose func(written int) bool
	n    int
}

func (a *answers) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answers) Write(data []byte) (int, error) {
	if a.n++; a.lose(a.n) {
		panic(http.ErrAbortHandler)
	}
	return a.ResponseWriter.Write(data)
}

func (a *answers) Flush() { a.ResponseWriter.(http.Flusher).Flush() }

// A client gets its picture, once, though an answer to its request is lost, the service is
// away for a moment, and each stream of events breaks off.
func TestClientGoesOn(t *testing.T) {
	ctx := context.Background()
	s := serve(t, true, jobs.Config{}, httpapi.Config{})
	at, err := url.Parse(s.url)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(at)
	proxy.FlushInterval = -1
	var posts, gets, streams atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && posts.Add(1) == 1:
			w = &answers{ResponseWriter: w, lose: func(int) bool { return true }}
		case strings.HasSuffix(r.URL.Path, "/events"):
			streams.Add(1)
			w = &answers{ResponseWriter: w, lose: func(n int) bool { return n > 2 }}
		case r.Method == http.MethodGet && gets.Add(1) == 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer web.Close()
	c, err := client.New(web.URL+"/", "", nil)
	require.NoError(t, err)
	size, iterations := 96, 400
	j, err := c.Submit(ctx, client.Request{Options: client.Options{Size: &size, Iterations: &iterations},
		Content: jobstest.Content(t), Styles: [][]byte{jobstest.Style(t)}})
	require.NoError(t, err)
	assert.Len(t, s.queue.List(), 1)
	assert.EqualValues(t, 2, posts.Load())
	told, last := 0, int64(-1)
	j, err = c.Follow(ctx, j.Id, func(j *client.Job) {
		told++
		assert.Greater(t, j.Revision, last)
		last = j.Revision
	})
	require.NoError(t, err)
	assert.Equal(t, client.Done, j.State)
	assert.Equal(t, 400, j.Result.Iterations)
	assert.Greater(t, told, 2)
	assert.GreaterOrEqual(t, streams.Load(), int32(2))
	var picture bytes.Buffer
	require.NoError(t, c.Result(ctx, j.Id, &picture))
	assert.Equal(t, j.Result.Bytes, picture.Len())
	picture.Reset()
	require.NoError(t, c.Preview(ctx, j.Id, &picture))
	assert.NotZero(t, picture.Len())

	require.NoError(t, c.Cancel(ctx, j.Id))
	_, err = c.Follow(ctx, j.Id, func(*client.Job) {})
	var p *client.ProblemError
	require.ErrorAs(t, err, &p)
	assert.Equal(t, 404, p.Status)
	_, err = c.Submit(ctx, client.Request{Options: map[string]any{"size": 5}, Content: []byte("no picture")})
	require.ErrorAs(t, err, &p)
	assert.Equal(t, 422, p.Status)
	ended, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	<-ended.Done()
	_, err = c.Job(ended, "x")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// A result that breaks off on its way goes on where it did.
func TestResultFile(t *testing.T) {
	result := bytes.Repeat([]byte("a clip "), 100_000)
	var ranges []string
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		if len(ranges) < 4 {
			w = &answers{ResponseWriter: w, lose: func(n int) bool { return n > 4 }}
		}
		http.ServeContent(w, r, "result.mp4", time.Time{}, bytes.NewReader(result))
	}))
	defer web.Close()
	c, err := client.New(web.URL, "", nil)
	require.NoError(t, err)
	file, err := os.Create(filepath.Join(t.TempDir(), "result.mp4"))
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, c.ResultFile(context.Background(), "job", file))
	got, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	assert.True(t, bytes.Equal(result, got))
	require.Len(t, ranges, 4)
	assert.Empty(t, ranges[0])
	assert.Regexp(t, `^bytes=[1-9]\d*-$`, ranges[3])
}
