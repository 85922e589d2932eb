package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// service is a queue, with a worker or without, behind its API on a real server.
type service struct {
	t     testing.TB
	url   string
	queue *jobs.Queue
	api   *httpapi.API
	docs  routers.Router // nil: answers are not validated
	token string

	validated atomic.Int64 // answers
}

func serve(t testing.TB, worker bool, qc jobs.Config, c httpapi.Config, options ...nst.OpenOptions) *service {
	q := jobstest.Open(t, qc)
	if worker {
		jobstest.Work(t, q, jobstest.Engine(t, options...))
	}
	api := httpapi.New(q, c)
	web := httptest.NewUnstartedServer(nil)
	web.Config = api.Server()
	web.Start()
	t.Cleanup(func() { api.Close(); web.Close() })
	s := &service{t: t, url: web.URL, api: api, queue: q, docs: documented(t)}
	if len(c.Tokens) > 0 {
		s.token = c.Tokens[0].Secret
	}
	return s
}

// documented is what openapi.json says.
func documented(t testing.TB) routers.Router {
	data, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	doc, err := openapi3.NewLoader().LoadFromData(data)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(context.Background()))
	router, err := gorillamux.NewRouter(doc)
	require.NoError(t, err)
	return router
}

func (s *service) do(r *http.Request) (int, http.Header, []byte) {
	if s.token != "" && r.Header.Get("Authorization") == "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(s.t, err)
	s.validate(r, answer.StatusCode, answer.Header, body)
	return answer.StatusCode, answer.Header, body
}

// validate holds an answer against openapi.json.
func (s *service) validate(r *http.Request, status int, header http.Header, body []byte) {
	route, path, err := s.docs.FindRoute(r)
	if err != nil || status == http.StatusRequestHeaderFieldsTooLarge {
		return // nothing is said of it, or net/http answers
	}
	s.validated.Add(1)
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: path, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if status < 300 && r.GetBody != nil { // what was taken is what is described
		sent := r.Clone(context.Background())
		sent.Body, _ = r.GetBody()
		in.Request = sent
		assert.NoError(s.t, openapi3filter.ValidateRequest(context.Background(), in), "%s %s", r.Method, r.URL)
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: status, Header: header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true,
			ExcludeResponseBody: strings.HasPrefix(header.Get("Content-Type"), "image/") ||
				strings.HasPrefix(header.Get("Content-Type"), "video/") ||
				strings.HasPrefix(header.Get("Content-Type"), "text/")},
	}
	assert.NoError(s.t, openapi3filter.ValidateResponse(context.Background(), out), "%s %s answered %d: %s", r.Method,
		r.URL, status, body)
}

func (s *service) get(path string) (int, http.Header, []byte) {
	r, err := http.NewRequest("GET", s.url+path, nil)
	require.NoError(s.t, err)
	return s.do(r)
}

// form is a multipart form, of names and values one after the other.
func form(t testing.TB, parts ...any) (body *bytes.Buffer, kind string) {
	body = new(bytes.Buffer)
	w := multipart.NewWriter(body)
	for i := 0; i < len(parts); i += 2 {
		name := parts[i].(string)
		if text, ok := parts[i+1].(string); ok {
			p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {multipart.FileContentDisposition(name,
				"")}, "Content-Type": {"application/json"}})
			require.NoError(t, err)
			_, err = io.WriteString(p, text)
			require.NoError(t, err)
			continue
		}
		p, err := w.CreateFormFile(name, "../../"+name+".png")
		require.NoError(t, err)
		_, err = p.Write(parts[i+1].([]byte))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return body, w.FormDataContentType()
}

func (s *service) post(header map[string]string, parts ...any) (int, http.Header, []byte) {
	body, kind := form(s.t, parts...)
	r, err := http.NewRequest("POST", s.url+"/v1/jobs", body)
	require.NoError(s.t, err)
	r.Header.Set("Content-Type", kind)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return s.do(r)
}

// job submits one of the demo pictures, and returns its id.
func (s *service) job(options string) string {
	return s.jobOf(options, jobstest.Content(s.t), jobstest.Style(s.t))
}

func (s *service) jobOf(options string, content, style []byte) string {
	status, header, body := s.post(nil, "options", options, "content", content, "style", style)
	require.Equal(s.t, 201, status, string(body))
	var j jobs.Job
	require.NoError(s.t, json.Unmarshal(body, &j))
	assert.Equal(s.t, "/v1/jobs/"+j.ID, header.Get("Location"))
	assert.Equal(s.t, jobs.Queued, j.State)
	return j.ID
}

func (s *service) until(id string, so func(jobs.Job) bool) (j jobs.Job) {
	require.Eventually(s.t, func() bool {
		status, _, body := s.get("/v1/jobs/" + id)
		require.Equal(s.t, 200, status)
		require.NoError(s.t, json.Unmarshal(body, &j))
		return so(j)
	}, 3*time.Minute, 30*time.Millisecond)
	return j
}

// All calls, each answer held against openapi.json.
func TestCalls(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{{Secret: "a token of the test"}}})
	id := s.job(`{"size":64,"iterations":3,"scales":"off","content_layers":["relu4_2"]}`)
	j := s.until(id, func(j jobs.Job) bool { return j.State.Finished() })
	assert.Equal(t, jobs.Done, j.State, j.Error)
	for path, kind := range map[string]string{
		"/v1/jobs/" + id + "/result": "image/png", "/v1/jobs/" + id + "/preview": "image/jpeg",
		"/v1/jobs/" + id + "/content": "image/png", "/v1/jobs/" + id + "/style-1": "image/png",
		"/v1/jobs": "application/json", "/v1/limits": "application/json", "/openapi.json": "application/json",
		"/healthz": "application/json", "/readyz": "application/json", "/": "text/html",
		"/page/app.js": "text/javascript",
	} {
		status, header, _ := s.get(path)
		assert.Equal(t, 200, status, path)
		assert.Contains(t, header.Get("Content-Type"), kind, path)
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), path)
		assert.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'", path)
	}
	_, _, text := s.get("/metrics")
	for _, metric := range []string{`nst_jobs{state="done"} 1`, "nst_queue_depth 0", "nst_workers 1",
		"nst_worker_seconds_per_iteration", "nst_worker_device_memory_bytes",
		`nst_http_request_seconds_count{call="POST /v1/jobs",status="201"} 1`} {
		assert.Contains(t, string(text), metric)
	}
	r, err := http.NewRequest("DELETE", s.url+"/v1/jobs/"+id, nil)
	require.NoError(t, err)
	status, _, _ := s.do(r)
	assert.Equal(t, 204, status)
	assert.Greater(t, s.validated.Load(), int64(10))
	status, _, _ = s.get("/v1/jobs/" + id)
	assert.Equal(t, 404, status)
}

func TestIdempotencyKey(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	parts := []any{"content", jobstest.Content(t), "style", jobstest.Style(t)}
	var ids sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			body, kind := form(t, parts...)
			r, _ := http.NewRequest("POST", s.url+"/v1/jobs", body)
			r.Header.Set("Content-Type", kind)
			r.Header.Set("Idempotency-Key", "k")
			status, header, text := s.do(r)
			assert.Contains(t, []int{200, 201}, status, string(text))
			ids.Store(header.Get("Location"), true)
		})
	}
	all.Wait()
	count := 0
	ids.Range(func(any, any) bool { count++; return true })
	assert.Equal(t, 1, count)
	assert.Len(t, s.queue.List(), 1)
	status, _, _ := s.post(map[string]string{"Idempotency-Key": "k"}, append(parts, "options", `{"size":64}`)...)
	assert.Equal(t, 422, status)
}

// event is one Server-Sent Event.
type event struct{ id, kind, data string }

// follow reads events until the stream ends or stop says so.
func (s *service) follow(id, last string, stop func(event) bool) (all []event, status int) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/jobs/"+id+"/events", nil)
	require.NoError(s.t, err)
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer answer.Body.Close()
	var e event
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if e.kind != "" {
				all = append(all, e)
				if stop(e) {
					return all, answer.StatusCode
				}
			}
			e = event{}
		}
	}
	return all, answer.StatusCode
}

// A stream that breaks off goes on after the last event that was seen, and says at
// its end that there will be no more.
func TestEvents(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{})
	id := s.job(`{"size":96,"iterations":40,"scales":"off"}`)
	first, status := s.follow(id, "", func(e event) bool { return e.kind == "progress" })
	require.Equal(t, 200, status)
	require.NotEmpty(t, first)
	last := first[len(first)-1].id
	rest, _ := s.follow(id, last, func(event) bool { return false })
	require.NotEmpty(t, rest)
	revision := func(e event) (n uint64) { _, _ = fmt.Sscan(e.id, &n); return n }
	before := uint64(0)
	for _, e := range append(first, rest...) {
		assert.Greater(t, revision(e), before)
		before = revision(e)
	}
	end := rest[len(rest)-1]
	assert.Equal(t, "state", end.kind)
	var j jobs.Job
	require.NoError(t, json.Unmarshal([]byte(end.data), &j))
	assert.Equal(t, jobs.Done, j.State)
	assert.GreaterOrEqual(t, len(j.Curve), 10)
	_, status = s.follow(id, end.id, func(event) bool { return false })
	assert.Equal(t, 204, status)
}
