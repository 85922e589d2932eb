package httpapi_test

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// pngOf is a PNG with a header of its own and so many rows of zeros behind it.
func pngOf(width, height uint32, rows int) []byte {
	var out bytes.Buffer
	out.WriteString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		_ = binary.Write(&out, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		out.Write(body)
		_ = binary.Write(&out, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	header := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)
	chunk("IHDR", append(header, 8, 2, 0, 0, 0))
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	line := make([]byte, 1+3*int(min(width, 1<<16)))
	for range rows {
		_, _ = z.Write(line)
	}
	_ = z.Close()
	chunk("IDAT", packed.Bytes())
	chunk("IEND", nil)
	return out.Bytes()
}

// gifOf is a GIF whose header says a size.
func gifOf(width, height uint16) []byte {
	return append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16([]byte("GIF89a"), width), height),
		0, 0, 0, ';')
}

// What is wrong in requests is answered with the status that says so, and the
// service goes on.
func TestHostileRequests(t *testing.T) {
	s := serve(t, false, jobs.Config{MaxJobs: 3, MaxPixels: 4 << 20}, httpapi.Config{MaxBytes: 8 << 20, MaxStreams: 4})
	content, style := jobstest.Content(t), jobstest.Style(t)
	pictures := func(content, style any) []any { return []any{"content", content, "style", style} }
	with := func(options string) []any { return append(pictures(content, style), "options", options) }
	many := pictures(content, style)
	for range 60 {
		many = append(many, "style", []byte("x"))
	}
	posts := []struct {
		name   string
		status int
		says   string
		parts  []any
	}{
		{"nothing", 422, "content is missing", nil},
		{"no style", 422, "style is missing", []any{"content", content}},
		{"no content", 422, "content is missing", []any{"style", style}},
		{"an empty picture", 422, "is empty", pictures([]byte{}, style)},
		{"text for a picture", 422, "not a picture", pictures([]byte("hello"), style)},
		{"HTML for a picture", 422, "not a picture", pictures([]byte("<html><script>alert(1)</script>"), style)},
		{"SVG", 422, "not a picture", pictures([]byte(`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`),
			style)},
		{"a TorchScript-like zip", 422, "not a picture", pictures([]byte("PK\x03\x04archive/data.pkl"), style)},
		{"a pickle", 422, "not a picture", pictures([]byte("\x80\x02cposix\nsystem\n"), style)},
		{"a picture cut short", 422, "cut short", pictures(content[:len(content)/2], style)},
		{"only a signature", 422, "cut short", pictures([]byte("\x89PNG\r\n\x1a\n"), style)},
		{"a bomb by its header", 422, "claims 60000×60000", pictures(pngOf(60000, 60000, 1), style)},
		{"a bomb beyond sides", 422, "claims 2000000×2", pictures(pngOf(2_000_000, 2, 1), style)},
		{"a bomb above this limit", 422, "at most 4194304", pictures(pngOf(3000, 3000, 3000), style)},
		{"no pixels", 422, "", pictures(pngOf(0, 10, 1), style)},
		{"sides that overflow", 422, "", pictures(pngOf(1<<31, 1<<31, 1), style)},
		{"a GIF of a lie", 422, "", pictures(gifOf(1000, 1000), style)},
		{"a JPEG of nothing", 422, "", pictures([]byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00"), style)},
		{"a WebP of nothing", 422, "", pictures([]byte("RIFF\x00\x00\x00\x00WEBPVP8 "), style)},
		{"a TIFF that points beyond itself", 422, "", pictures([]byte("II*\x00\xff\xff\xff\x7f"), style)},
		{"a picture too small", 422, "at least 8×8", pictures(pngOf(4, 4, 4), style)},
		{"a bad style", 422, "style 1", pictures(content, []byte("hello"))},
		{"an unknown part", 400, "unknown", append(pictures(content, style), "model", []byte("x"))},
		{"content twice", 400, "twice", append(pictures(content, style), "content", content)},
		{"very many parts", 400, "more than 40", many},
		{"too large a body", 413, "8388608", pictures(bytes.Repeat([]byte("x"), 9<<20), style)},
		{"options that are no JSON", 422, "options", with("size=3")},
		{"options that are an array", 422, "object", with("[]")},
		{"options that end early", 422, "options", with(`{"size":`)},
		{"two options", 422, "after", with(`{} {}`)},
		{"options and braces", 422, "after", with(`{"size":64}}}}garbage`)},
		{"deep options", 422, "", with(`{"size":` + strings.Repeat("[", 20000) + `}`)},
		{"huge options", 413, "65536", with(`{"preset":"` + strings.Repeat("a", 70000) + `"}`)},
		{"a model's path", 422, "model", with(`{"model":"/etc/passwd"}`)},
		{"a device", 422, "device", with(`{"device":"cuda:7"}`)},
		{"an output", 422, "output", with(`{"output":"/tmp/x.png"}`)},
		{"a file to start from", 422, "", with(`{"init":"/etc/passwd"}`)},
		{"a URL to start from", 422, "", with(`{"init":"http://169.254.169.254/"}`)},
		{"a start that was not sent", 422, "part init", with(`{"init":"picture"}`)},
		{"a size of text", 422, "size is a string; a whole number is wanted", with(`{"size":"large"}`)},
		{"a negative size", 422, "size", with(`{"size":-1}`)},
		{"a huge size", 422, "65535", with(`{"size":100000}`)},
		{"a size above this limit", 422, "at most", with(`{"size":20000}`)},
		{"a number beyond numbers", 422, "", with(`{"size":1e400}`)},
		{"endless iterations", 422, "at most 20000", with(`{"iterations":2000000000}`)},
		{"a layer that is none", 422, "unknown layer", with(`{"style_layers":["../../etc"]}`)},
		{"weights for nobody", 422, "style_weights", with(`{"style_weights":[1,2,3]}`)},
		{"an unknown word", 422, "preset", with(`{"preset":"\u0000"}`)},
		{"a memory of nonsense", 422, "", with(`{"memory_limit":"all"}`)},
		{"a mask alone", 422, "content_mask", append(pictures(content, style), "content_mask", content)},
		{"a mask of strength that is none", 422, "strength mask", append(pictures(content, style), "strength_mask",
			[]byte("none"))},
		{"a mask of another aspect", 422, "content_mask is 64×16, of another aspect than the content picture", append(
			pictures(content, style), "content_mask", pngOf(64, 16, 16), "style_mask", style)},
		{"a style's mask of another aspect", 422, "style_mask is 16×64, of another aspect than the style", append(
			pictures(content, style), "content_mask", content, "style_mask", pngOf(16, 64, 64))},
		{"a mask of strength of another aspect", 422, "strength_mask is 64×16, of another aspect", append(
			pictures(content, style), "strength_mask", pngOf(64, 16, 16))},
	}
	for _, c := range posts {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := s.post(nil, c.parts...)
			assert.Equal(t, c.status, status, string(body))
			assert.Equal(t, "application/problem+json", header.Get("Content-Type"))
			assert.Contains(t, string(body), c.says)
			assert.NotContains(t, string(body), "goroutine")
		})
	}
	require.Empty(t, s.queue.List())

	body, kind := form(t, pictures(content, style)...)
	whole := body.Bytes()
	requests := []struct {
		name, method, path string
		status             int
		header             map[string]string
		body               []byte
	}{
		{"JSON for a form", "POST", "/v1/jobs", 415, map[string]string{"Content-Type": "application/json"},
			[]byte("{}")},
		{"no type", "POST", "/v1/jobs", 415, nil, whole},
		{"a form without a boundary", "POST", "/v1/jobs", 400, map[string]string{"Content-Type": "multipart/form-data"},
			whole},
		{"another boundary", "POST", "/v1/jobs", 422,
			map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, whole},
		{"a form that ends early", "POST", "/v1/jobs", 400, map[string]string{"Content-Type": kind},
			whole[:len(whole)-400]},
		{"a long key", "POST", "/v1/jobs", 400, map[string]string{"Content-Type": kind,
			"Idempotency-Key": strings.Repeat("k", 500)}, whole},
		{"another site's form", "POST", "/v1/jobs", 403, map[string]string{"Content-Type": kind,
			"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, whole},
		{"another site's deletion", "DELETE", "/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", 403,
			map[string]string{"Origin": "https://evil.example"}, nil},
		{"another name for this machine", "GET", "/v1/jobs", 421, map[string]string{"Host": "evil.example"}, nil},
		{"a job that is none", "GET", "/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", 404, nil, nil},
		{"a job of dots", "GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", 404, nil, nil},
		{"a job of wildcards", "GET", "/v1/jobs/%3E", 404, nil, nil},
		{"a key's record", "GET", "/v1/jobs/cancel.aaaaaaaaaaaaaaaaaaaaaaaaaa", 404, nil, nil},
		{"the picture of no job", "GET", "/v1/jobs/x/result", 404, nil, nil},
		{"a page that is none", "GET", "/page/..%2fapi.go", 404, nil, nil},
		{"the sources", "GET", "/api.go", 404, nil, nil},
		{"a method that is none", "BREW", "/v1/jobs", 405, nil, nil},
		{"a PUT", "PUT", "/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaa", 405, nil, nil},
		{"a limit that is none", "GET", "/v1/jobs?limit=many", 400, nil, nil},
		{"a limit below one", "GET", "/v1/jobs?limit=-5", 400, nil, nil},
		{"a session of nonsense", "POST", "/v1/session", 400, nil, []byte("}{")},
		{"a session of much", "POST", "/v1/session", 413, nil, bytes.Repeat([]byte("x"), 10_000)},
		{"headers without end", "GET", "/v1/jobs", 431, map[string]string{"X-Flood": strings.Repeat("x", 64<<10)}, nil},
	}
	for _, c := range requests {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequest(c.method, s.url+c.path, bytes.NewReader(c.body))
			require.NoError(t, err)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			r.Host = c.header["Host"]
			status, _, text := s.do(r)
			assert.Equal(t, c.status, status, string(text))
		})
	}
	require.Empty(t, s.queue.List())

	t.Run("what lies of its name and type is taken for what it is", func(t *testing.T) {
		polyglot := append(bytes.Clone(content), []byte("<script>alert(1)</script>")...)
		status, header, _ := s.post(nil, pictures(polyglot, style)...)
		require.Equal(t, 201, status)
		_, header, data := s.get(header.Get("Location") + "/content")
		assert.Equal(t, polyglot, data)
		assert.Equal(t, "image/png", header.Get("Content-Type"))
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		assert.Contains(t, header.Get("Content-Security-Policy"), "sandbox")
	})
	t.Run("a full queue", func(t *testing.T) {
		for range 2 {
			status, _, _ := s.post(nil, pictures(content, style)...)
			require.Equal(t, 201, status)
		}
		status, header, _ := s.post(nil, pictures(content, style)...)
		assert.Equal(t, 429, status)
		assert.NotEmpty(t, header.Get("Retry-After"))
		assert.Len(t, s.queue.List(), 3)
	})
	t.Run("a flood of event streams", func(t *testing.T) {
		id := s.queue.List()[0].ID
		statuses := map[int]int{}
		for range 10 {
			answer, err := http.Get(s.url + "/v1/jobs/" + id + "/events")
			require.NoError(t, err)
			defer answer.Body.Close()
			statuses[answer.StatusCode]++
		}
		assert.Equal(t, map[int]int{200: 4, 429: 6}, statuses)
	})
	status, _, _ := s.get("/healthz")
	assert.Equal(t, 200, status)
}

// raw sends bytes as they are and returns the answer's first line.
func raw(t *testing.T, s *service, text string, wait time.Duration) string {
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, text)
	require.NoError(t, err)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && line == "" {
		return err.Error()
	}
	return strings.TrimSpace(line)
}

// Clients that break HTTP, or take their time, do not keep the service.
func TestHostileConnections(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	for name, c := range map[string]struct{ sends, gets string }{
		"no HTTP": {"hello\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"no host": {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		"two lengths": {"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
			"5\r\nContent-Length: 6\r\n\r\nhello", "HTTP/1.1 400 Bad Request"},
		"a negative length": {"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
			"HTTP/1.1 400 Bad Request"},
		"an enormous length": {"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; " +
			"boundary=x\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 413 Request Entity Too Large"},
		"a header of newlines": {"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: a\nb\r\n\r\n",
			"HTTP/1.1 400 Bad Request"},
		"a body that does not come": {"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
			"HTTP/1.1 404 Not Found"},
		"a slow loris": {"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", "EOF"}, // cut off
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Contains(t, raw(t, s, c.sends, 12*time.Second), c.gets)
		})
	}
}

// Guessing tokens is told apart from using one.
func TestTokenGuesses(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{{Secret: "the token of this service"}}})
	ask := func(header, value string) int {
		r, err := http.NewRequest("GET", s.url+"/v1/jobs", nil)
		require.NoError(t, err)
		if header != "" {
			r.Header.Set(header, value)
		}
		answer, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		if answer.StatusCode == 401 {
			assert.Contains(t, answer.Header.Get("WWW-Authenticate"), "Bearer")
		}
		return answer.StatusCode
	}
	assert.Equal(t, 401, ask("", ""))
	assert.Equal(t, 401, ask("Authorization", "Basic dGhlIHRva2Vu"))
	assert.Equal(t, 401, ask("Cookie", "nst-session=0000"))
	assert.Equal(t, 200, ask("Authorization", "Bearer the token of this service"))
	statuses := map[int]int{}
	for i := range 30 {
		statuses[ask("Authorization", fmt.Sprintf("Bearer guess %d", i))]++
	}
	assert.Equal(t, map[int]int{401: 10, 429: 20}, statuses)
	assert.Equal(t, 200, ask("Authorization", "bEARER  the token of this service"),
		"who knows it is let in, however many did not")
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 503, "/": 200, "/openapi.json": 200} {
		answer, err := http.Get(s.url + path)
		require.NoError(t, err)
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		assert.Equal(t, status, answer.StatusCode, path)
		if path == "/readyz" {
			assert.Contains(t, string(text), "no worker has been seen for 10 seconds")
		}
	}
}

// Files that were made to hurt are jobs like others or 422, whatever happens to the processes
// that decode them, and other jobs are taken meanwhile.
func TestHostilePictures(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	paths, err := filepath.Glob("../picture/testdata/hostile/*")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(paths), 12)
	ended, killed := make(chan struct{}), make(chan int)
	go func() { // kills all children once: what a child was at is done by another
		for count := 0; ; {
			select {
			case <-ended:
				killed <- count
				return
			case <-time.After(50 * time.Millisecond):
			}
			if count > 0 {
				continue
			}
			all, _ := procfs.AllProcs()
			for _, p := range all {
				if stat, err := p.Stat(); err == nil && stat.PPID == os.Getpid() &&
					syscall.Kill(p.PID, syscall.SIGKILL) == nil {
					count++
				}
			}
		}
	}()
	var group sync.WaitGroup
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		group.Go(func() {
			for _, parts := range [][]any{{"content", data, "style", jobstest.Style(t)},
				{"content", jobstest.Content(t), "style", data}} {
				status, _, body := s.post(nil, parts...)
				assert.Contains(t, []int{201, 422, 429}, status, "%s: %s", path, body)
				if slices.Contains([]string{"jpeg-scans-1000.jpg", "tiff-tile-zstd.tif", "heic-lie.heic",
					"avif-lie.avif", "jxl-two.jxl"}, filepath.Base(path)) {
					assert.NotEqual(t, 201, status, path)
				}
			}
		})
	}
	for range 10 {
		s.job(`{"size":32}`)
	}
	group.Wait()
	close(ended)
	assert.Positive(t, <-killed)
	s.job(`{"size":32}`)
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A problem names an option as the client has written it, and other options too.
func TestOptionsByTheirNames(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	for given, want := range map[string][2]string{
		`{"size":"large"}`:                         {"size", "size is a string; a whole number is wanted"},
		`{"style_margin":[1]}`:                     {"style_margin", "style_margin is a array; a number is wanted"},
		`{"frame_iterations":true}`:                {"frame_iterations", "is a bool; a whole number is wanted"},
		`{"siez":3}`:                               {"siez", "siez is no option; /openapi.json lists them"},
		`{"memory_limit":"much"}`:                  {"memory_limit", "memory_limit cannot be read: "},
		`{"size":-1}`:                              {"size", "size is -1; a number of pixels, or 0, will do"},
		`{"strength":0.5,"style_weight":3}`:        {"strength", "and style_weight are two ways to say one thing"},
		`{"transfer":"luminance","color":"match"}`: {"color", "color is match, and transfer luminance"},
		`{"mask_soft":true}`:                       {"mask_soft", "mask_soft blends the regions"},
	} {
		status, _, body := s.post(nil, "content", jobstest.Content(t), "style", jobstest.Style(t), "options",
			[]byte(given))
		require.Equal(t, 422, status, string(body))
		var p struct{ Field, Detail string }
		require.NoError(t, json.Unmarshal(body, &p))
		assert.Equal(t, want[0], p.Field, given)
		assert.Contains(t, p.Detail, want[1])
	}
}
