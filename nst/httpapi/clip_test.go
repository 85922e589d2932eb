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
	status, header, body := s.post(nil, "options", cheap, "clip", sent, "style", jobstest.Demo(t, "style.png"))
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
