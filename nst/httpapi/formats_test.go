package httpapi_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// A result is handed out as PNG, JPEG and WebP, each with its tag and its settings.
func TestResultFormats(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{})
	id := s.job(`{"size":64,"iterations":2,"scales":"off","content_layers":["relu4_2"],"seed":7}`)
	path := "/v1/jobs/" + id + "/result"
	status, _, _ := s.get(path + "?format=jpeg")
	assert.Contains(t, []int{200, 404}, status, "not ready, or just so")
	require.Equal(t, jobs.Done, s.until(id, func(j jobs.Job) bool { return j.State.Finished() }).State)
	_, _, whole := s.get(path)
	original, err := picture.Decode(bytes.NewReader(whole))
	require.NoError(t, err)
	tags := map[string]bool{}
	for _, format := range []string{"png", "jpeg", "webp"} {
		status, header, data := s.get(path + "?format=" + format)
		require.Equal(t, 200, status, string(data))
		assert.Equal(t, "image/"+format, header.Get("Content-Type"))
		assert.Contains(t, header.Get("Content-Disposition"), id[:8]+"-result."+format)
		assert.Equal(t, format, picture.FormatByStart(data))
		info, err := picture.Inspect(data)
		require.NoError(t, err)
		o, ok := nst.ReadRecord(info.Comment)
		require.True(t, ok, "%s has its settings: %q", format, info.Comment)
		assert.Equal(t, uint64(7), o.Seed)
		p, err := picture.Decode(bytes.NewReader(data))
		require.NoError(t, err)
		assert.Equal(t, original.Width, p.Width)
		difference := 0.0
		for i, v := range p.Pixels {
			difference += float64((v - original.Pixels[i]) * (v - original.Pixels[i]))
		}
		assert.Less(t, difference/float64(len(p.Pixels)), 2e-3, format)

		tag := header.Get("ETag")
		assert.False(t, tags[tag], "each format has a tag of its own")
		tags[tag] = true
		r, err := http.NewRequest("GET", s.url+path+"?format="+format, nil)
		require.NoError(t, err)
		r.Header.Set("If-None-Match", tag)
		status, _, _ = s.do(r)
		assert.Equal(t, 304, status, format)
		r.Header.Del("If-None-Match")
		r.Header.Set("Range", "bytes=0-9")
		status, _, part := s.do(r)
		assert.Equal(t, 206, status, format)
		assert.Equal(t, data[:10], part, "%s is the same each time", format)
	}
	for _, format := range []string{"tiff", "", "../png"} {
		status, _, text := s.get(path + "?format=" + format)
		assert.Equal(t, 400, status, format)
		assert.Contains(t, string(text), "png, jpeg or webp will do")
	}
}

// A job says which pictures were sent with it, and hands out each as it came.
func TestPicturesOfAJob(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{})
	content, style := jobstest.Content(t), jobstest.Style(t)
	var grey, small bytes.Buffer
	require.NoError(t, picture.New(128, 96).Encode(&grey, picture.PNG, picture.Encoding{}))
	require.NoError(t, picture.New(10, 8).Encode(&small, picture.PNG, picture.Encoding{}))
	status, header, body := s.post(nil, "content", content, "style", style, "content_mask", grey.Bytes(), "style_mask",
		small.Bytes(), "options", `{"mask_soft":true}`)
	require.Equal(t, 201, status, string(body))
	assert.Contains(t, string(body), `"pictures":["content","style-1","content-mask","style-mask-1"]`)
	for name, want := range map[string][]byte{"content": content, "style-1": style, "content-mask": grey.Bytes(),
		"style-mask-1": small.Bytes()} {
		status, _, got := s.get(header.Get("Location") + "/" + name)
		assert.Equal(t, 200, status, name)
		assert.Equal(t, want, got, name)
	}
}
