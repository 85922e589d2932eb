package httpapi_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// cheap are options of a clip whose frames take no time.
const cheap = `{"size":64,"iterations":2,"frame_iterations":2,"scales":"off"}`

// clip is a clip's file.
func clip(t testing.TB, frames int, ending string) []byte {
	data, err := os.ReadFile(nsttest.Clip(t, frames, ending))
	require.NoError(t, err)
	return data
}

// A clip is sent, made, and taken in parts.
func TestClip(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{})
	sent := clip(t, 4, ".webm")
	status, header, body := s.post(nil, "options", cheap, "clip", sent, "style", jobstest.Style(t))
	require.Equal(t, 201, status, string(body))
	at := header.Get("Location")
	j := s.until(at[len("/v1/jobs/"):], func(j jobs.Job) bool { return j.State.Finished() })
	require.Equal(t, jobs.Done, j.State, j.Error)
	assert.Equal(t, 4, j.Clip.Frames)
	assert.Equal(t, "video/mp4", j.Result.Type)

	status, header, body = s.get(at + "/clip")
	assert.Equal(t, 200, status)
	assert.Equal(t, "video/webm", header.Get("Content-Type"))
	assert.Equal(t, sent, body)
	status, _, body = s.get(at + "/content")
	assert.Equal(t, 404, status, string(body))

	status, header, whole := s.get(at + "/result")
	assert.Equal(t, 200, status)
	assert.Equal(t, "video/mp4", header.Get("Content-Type"))
	assert.Contains(t, header.Get("Content-Disposition"), "-result.mp4")
	assert.Len(t, whole, j.Result.Bytes)
	r, err := http.NewRequest("GET", s.url+at+"/result", nil)
	require.NoError(t, err)
	r.Header.Set("Range", "bytes=4-7")
	status, _, body = s.do(r)
	assert.Equal(t, 206, status)
	assert.Equal(t, "ftyp", string(body))
	r.Header.Del("Range")
	r.Header.Set("If-None-Match", header.Get("ETag"))
	status, _, _ = s.do(r)
	assert.Equal(t, 304, status)
	head, err := http.Head(s.url + at + "/result")
	require.NoError(t, err)
	assert.Equal(t, int64(len(whole)), head.ContentLength)
	status, _, body = s.get(at + "/result?format=jpeg")
	assert.Equal(t, 400, status)
	assert.Contains(t, string(body), "the job is of a clip")
	status, header, _ = s.get(at + "/preview")
	assert.Equal(t, 200, status)
	assert.Equal(t, "image/jpeg", header.Get("Content-Type"))
}

// What is no clip, or too much of one, is refused in words, and leaves no file behind.
func TestClipIsRefused(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := serve(t, false, jobs.Config{MaxClipFrames: 5}, httpapi.Config{MaxBytes: 1 << 20, MaxClipBytes: 100_000})
	style, good := jobstest.Style(t), clip(t, 2, ".mp4")
	refused := func(status int, says string, parts ...any) {
		t.Helper()
		got, _, body := s.post(nil, parts...)
		assert.Equal(t, status, got, string(body))
		assert.Contains(t, string(body), says)
		assert.NotContains(t, string(body), os.TempDir())
	}
	refused(422, "the clip is no video", "clip", []byte("a text"), "style", style)
	refused(422, "the clip is no video", "style", style, "clip",
		[]byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"))
	refused(422, "the clip is no video", "style", style, "clip", []byte("ffconcat version 1.0\nfile /etc/passwd\n"))
	refused(422, "has 6 frames; at most 5", "style", style, "clip", clip(t, 6, ".mp4"))
	refused(413, "a clip may have 100000 bytes", "style", style, "clip", make([]byte, 200_000))
	refused(413, "1048576", "clip", good, "style", make([]byte, 1_060_000))
	refused(413, "1148576", "clip", good, "style", make([]byte, 12<<20))
	refused(400, "content and clip; one of them", "clip", good, "content", style, "style", style)
	refused(400, "is there twice", "clip", good, "clip", good, "style", style)
	refused(422, "the part style is missing", "clip", good)
	refused(422, "style 1 picture", "clip", good, "style", []byte("none"))
	refused(422, "are of a clip", "content", style, "style", style, "options", `{"passes":2}`)
	refused(422, "passes is 11; 1 to 10", "clip", good, "style", style, "options", `{"passes":11}`)
	refused(422, "frame_iterations is -1", "clip", good, "style", style, "options", `{"frame_iterations":-1}`)
	refused(422, "long_term is a string", "clip", good, "style", style, "options", `{"long_term":"1,2"}`)
	refused(422, "container is", "clip", good, "style", style, "options", `{"container":"exe"}`)
	assert.Empty(t, s.queue.List())

	key := map[string]string{"Idempotency-Key": "one"}
	status, first, body := s.post(key, "clip", good, "style", style, "options", cheap)
	require.Equal(t, 201, status, string(body))
	status, again, _ := s.post(key, "clip", good, "style", style, "options", cheap)
	assert.Equal(t, 200, status)
	assert.Equal(t, first.Get("Location"), again.Get("Location"))
	status, _, body = s.post(key, "clip", clip(t, 3, ".mp4"), "style", style, "options", cheap)
	assert.Equal(t, 422, status, string(body))
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	for _, one := range left {
		assert.NotContains(t, one.Name(), "nst-")
	}

	_, _, body = s.get("/v1/limits")
	assert.Contains(t, string(body), `"max_clip_bytes":100000`)
	t.Setenv("PATH", t.TempDir())
	_, _, body = s.get("/v1/limits")
	assert.Contains(t, string(body), `"max_clip_bytes":0`)
	refused(422, "ffmpeg and ffprobe, by which they are read, are not installed", "clip", good, "style", style)
}
