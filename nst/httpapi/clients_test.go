package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// Behind a trusted proxy clients are told apart, and one that guesses locks out itself
// alone; what others say of whom they are is not believed.
func TestProxies(t *testing.T) {
	var log bytes.Buffer
	c := httpapi.Config{
		Tokens: []httpapi.Token{{Owner: jobs.Owner{Name: "ann"}, Secret: "the token of ann"},
			{Owner: jobs.Owner{Name: "bob"}, Secret: "the token of bob"}},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Log:            slog.New(slog.NewJSONHandler(&log, nil)), LogReads: true,
	}
	s := serve(t, false, jobs.Config{}, c)
	ask := func(token, forwarded string) int {
		r, err := http.NewRequest("GET", s.url+"/v1/jobs", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Forwarded-For", forwarded)
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		answer.Body.Close()
		return answer.StatusCode
	}
	for range 10 {
		require.Equal(t, 401, ask("wrong", "203.0.113.9"))
	}
	assert.Equal(t, 429, ask("wrong", "203.0.113.9"))
	assert.Equal(t, 429, ask("wrong", "198.51.100.7, 203.0.113.9"), "what a client claims to forward is not believed")
	assert.Equal(t, 401, ask("wrong", "203.0.113.10"))
	assert.Equal(t, 200, ask("the token of ann", "203.0.113.9"))
	assert.Equal(t, 200, ask("the token of bob", "203.0.113.9, 127.0.0.1"))
	assert.Contains(t, log.String(), `"client":"203.0.113.9","token":"bob"`)

	// Sessions: secure behind TLS, good in another process that serves the queue, ended in all.
	login := func(url string) *http.Cookie {
		r, err := http.NewRequest("POST", url+"/v1/session", strings.NewReader(`{"token":"the token of bob"}`))
		require.NoError(t, err)
		r.Header.Set("X-Forwarded-Proto", "https")
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		answer.Body.Close()
		require.Len(t, answer.Cookies(), 1)
		return answer.Cookies()[0]
	}
	cookie := login(s.url)
	assert.True(t, cookie.Secure)
	again := httpapi.New(s.queue, c)
	defer again.Close()
	other := httptest.NewServer(again)
	defer other.Close()
	with := func(method, path string) *http.Response {
		r, err := http.NewRequest(method, other.URL+path, nil)
		require.NoError(t, err)
		r.AddCookie(cookie)
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		answer.Body.Close()
		return answer
	}
	assert.Equal(t, 200, with("GET", "/v1/jobs").StatusCode)
	out := with("DELETE", "/v1/session")
	assert.Equal(t, 204, out.StatusCode)
	require.Len(t, out.Cookies(), 1)
	assert.Negative(t, out.Cookies()[0].MaxAge)
	assert.Equal(t, 401, with("GET", "/v1/jobs").StatusCode, "the cookie is worth nothing any more")
	assert.Equal(t, 204, with("DELETE", "/v1/session").StatusCode)
	cookie = login(s.url)
	assert.Equal(t, 200, with("GET", "/v1/jobs").StatusCode)
	again.SetTokens(c.Tokens[:1])
	assert.Equal(t, 401, with("GET", "/v1/jobs").StatusCode, "the token is none any more")
}

// Senders that are slow hold up nobody else: they have shares, and no slot.
func TestSlowSenders(t *testing.T) {
	nsttest.Long(t)
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	body, kind := form(t, "content", jobstest.Content(t), "style", jobstest.Style(t), "options",
		`{"size":32}`)
	whole := body.Bytes()
	var slow []net.Conn
	for range 15 {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		defer c.Close()
		_, err = fmt.Fprintf(c, "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: "+
			"%d\r\n\r\n%s", kind, len(whole), whole[:1000])
		require.NoError(t, err)
		slow = append(slow, c)
	}
	// Were there a slot that the slow ones hold, this one would be told to come again.
	status, _, text := s.post(nil, "content", jobstest.Content(t), "style", jobstest.Style(t),
		"options", `{"size":32}`)
	require.Equal(t, 201, status, string(text))
	// The seventeenth of one client is one too many.
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			answers <- raw(t, s, fmt.Sprintf("POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+
				"%s\r\nContent-Length: %d\r\n\r\n%s", kind, len(whole), whole[:1000]), 40*time.Second)
		}()
	}
	assert.Contains(t, <-answers, "429")
	assert.Contains(t, <-answers, "408", "who sends nothing for 15 seconds")
	for _, c := range slow {
		c.Close()
	}
}

// A connection is closed when a request is refused before its body was looked at, in HTTP/1;
// one whose pictures have come keeps it.
func TestRefusedKeepTheirConnection(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	for name, c := range map[string]struct {
		http2 bool
		path  string
		size  int
		kept  bool
	}{
		"another path":            {false, "/v1/nothing", 300 << 10, false},
		"another path, by HTTP/2": {true, "/v1/nothing", 300 << 10, true},
		"a wrong option":          {false, "/v1/jobs", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewUnstartedServer(s.api)
			web.EnableHTTP2 = c.http2
			web.StartTLS()
			defer web.Close()
			body, kind := form(t, "content", jobstest.Content(t), "style", append(jobstest.Style(t),
				make([]byte, c.size)...), "options", `{"size":-1}`)
			answer, err := web.Client().Post(web.URL+c.path, kind, body)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, answer.Body)
			require.NoError(t, err)
			answer.Body.Close()
			assert.GreaterOrEqual(t, answer.StatusCode, 400)
			kept := false
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { kept = i.Reused }}
			r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET",
				web.URL+"/healthz", nil)
			require.NoError(t, err)
			answer, err = web.Client().Do(r)
			require.NoError(t, err)
			answer.Body.Close()
			assert.Equal(t, c.kept, kept)
		})
	}
}

// Pictures in parts, by their tags, and many at once; a client that is slow gets all.
func TestDownloads(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	content := jobstest.Content(t)
	large := append(bytes.Clone(content), make([]byte, 3<<20)...) // what follows a picture is kept too
	status, header, text := s.post(nil, "content", large, "style", jobstest.Style(t), "options",
		`{"size":32}`)
	require.Equal(t, 201, status, string(text))
	path := header.Get("Location") + "/content"
	get := func(headers ...string) (*http.Response, []byte) {
		r, err := http.NewRequest("GET", s.url+path, nil)
		require.NoError(t, err)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		data, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer, data
	}
	answer, data := get()
	assert.Equal(t, 200, answer.StatusCode)
	assert.True(t, bytes.Equal(large, data))
	tag := answer.Header.Get("ETag")
	require.NotEmpty(t, tag)
	answer, data = get("If-None-Match", tag)
	assert.Equal(t, 304, answer.StatusCode)
	assert.Empty(t, data)
	answer, data = get("Range", "bytes=10-19")
	assert.Equal(t, 206, answer.StatusCode)
	assert.Equal(t, large[10:20], data)
	answer, data = get("Range", "bytes=99999999-")
	assert.Equal(t, 416, answer.StatusCode)
	assert.Equal(t, "application/problem+json", answer.Header.Get("Content-Type"))
	assert.Contains(t, string(data), `the range \"bytes=99999999-\" is none of the picture, which has 3`)
	answer, data = get("Range", "some of it")
	assert.Equal(t, 416, answer.StatusCode)
	assert.Contains(t, string(data), `is none of the picture, which has 3`)

	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			answer, data := get()
			assert.Equal(t, 200, answer.StatusCode)
			assert.Len(t, data, len(large))
		})
	}
	all.Wait()
	slow, err := http.Get(s.url + path)
	require.NoError(t, err)
	defer slow.Body.Close()
	rest := int64(0)
	for range 20 {
		n, err := io.CopyN(io.Discard, slow.Body, 1<<10)
		require.NoError(t, err)
		rest += n
		time.Sleep(20 * time.Millisecond)
	}
	n, err := io.Copy(io.Discard, slow.Body)
	require.NoError(t, err)
	assert.Equal(t, int64(len(large)), rest+n)
}

// A key whose job was deleted is free again.
func TestKeyOfADeletedJob(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	post := func() (int, string) {
		status, _, text := s.post(map[string]string{"Idempotency-Key": "one"}, "content",
			jobstest.Content(t),
			"style", jobstest.Style(t), "options", `{"size":32}`)
		var j struct{ ID string }
		require.NoError(t, json.Unmarshal(text, &j), string(text))
		return status, j.ID
	}
	status, id := post()
	require.Equal(t, 201, status)
	for range 2 { // cancel, forget
		r, err := http.NewRequest("DELETE", s.url+"/v1/jobs/"+id, nil)
		require.NoError(t, err)
		status, _, text := s.do(r)
		require.Less(t, status, 300, string(text))
	}
	status, other := post()
	assert.Equal(t, 201, status, "the key is free")
	assert.NotEqual(t, id, other)
}
