package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// clipRequest is of a clip with so many frames, each of them cheap.
func clipRequest(t testing.TB, frames, iterations int) jobs.Request {
	size := 64
	return jobs.Request{
		Options:     nst.Options{Size: &size, Iterations: &iterations, Scales: nst.ScalesOff},
		Clip:        jobstest.Clip(t, frames, ".mp4"),
		ClipOptions: jobs.ClipOptions{FrameIterations: &iterations},
		Styles:      [][]byte{jobstest.Demo(t, "style.png")},
	}
}

// probed is what ffprobe says of a clip, whose frames it decodes.
type probed struct {
	Streams []struct {
		Kind   string `json:"codec_type"`
		Codec  string `json:"codec_name"`
		Width  int    `json:"width"`
		Height int    `json:"height"`
		Frames string `json:"nb_read_frames"`
	} `json:"streams"`
	Format struct {
		Name string `json:"format_name"`
	} `json:"format"`
}

func probe(t testing.TB, data []byte) (p probed) {
	path := filepath.Join(t.TempDir(), "result")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	out, err := exec.Command("ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format",
		"-print_format", "json", path).Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &p))
	return p
}

// left are the folders of clips that are being made.
func left(t testing.TB) []string {
	folders, err := filepath.Glob(filepath.Join(os.TempDir(), "nst-clip-*"))
	require.NoError(t, err)
	return folders
}

// A clip's result is a clip, with its frames and its sound, and nothing of the way is left.
func TestClipIsMade(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx := context.Background()
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	r := clipRequest(t, 5, 2)
	r.ClipOptions.Passes, r.ClipOptions.Container = 2, "mkv"
	j := submit(t, q, r)
	assert.Equal(t, 5, j.Clip.Frames)
	assert.Equal(t, []string{"clip", "style-1"}, j.Pictures())
	sent, err := os.ReadFile(r.Clip)
	require.NoError(t, err)
	kept, err := q.Picture(ctx, j.ID, "clip")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(sent, kept))
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, finished)
	require.Equal(t, jobs.Done, j.State, j.Error)
	assert.Equal(t, jobs.Result{Type: "video/x-matroska", Frames: 5, Shots: 1, Bytes: j.Result.Bytes, Iterations: 18,
		Seconds: j.Result.Seconds, PeakMemory: j.Result.PeakMemory}, *j.Result)
	assert.Equal(t, 10, j.Progress.Frame)
	assert.Equal(t, 10, j.Progress.Frames)
	assert.Equal(t, 1.0, j.Progress.Fraction)
	assert.Len(t, j.Curve, 10)
	result, err := q.Picture(ctx, j.ID, "result")
	require.NoError(t, err)
	assert.Len(t, result, j.Result.Bytes)
	p := probe(t, result)
	require.Len(t, p.Streams, 2)
	assert.Equal(t, "matroska,webm", p.Format.Name)
	assert.Equal(t, []any{"5", 64, 48, "audio"}, []any{p.Streams[0].Frames, p.Streams[0].Width, p.Streams[0].Height,
		p.Streams[1].Kind})
	preview, err := q.Picture(ctx, j.ID, "preview")
	require.NoError(t, err)
	_, _, format, err := picture.Header(preview)
	require.NoError(t, err)
	assert.Equal(t, "jpeg", format)
	assert.Empty(t, left(t))
}
