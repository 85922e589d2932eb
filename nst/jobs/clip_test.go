package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// clipRequest is of a clip with so many frames, each of them cheap.
func clipRequest(t testing.TB, frames, iterations int) jobs.Request {
	size := 64
	return jobs.Request{
		Options:     nst.Options{Size: &size, Iterations: &iterations, Scales: nst.ScalesOff},
		Clip:        nsttest.Clip(t, frames, ".mp4"),
		ClipOptions: jobs.ClipOptions{FrameIterations: &iterations},
		Styles:      [][]byte{jobstest.Style(t)},
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

func nothingLeft(t testing.TB) {
	require.Eventually(t, func() bool { return len(left(t)) == 0 }, 10*time.Second, 20*time.Millisecond)
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
	info, err := picture.Inspect(preview)
	require.NoError(t, err)
	assert.Equal(t, "jpeg", info.Format)
	nothingLeft(t)
}

// A clip that is given back goes on where it was, and comes out as if nothing had happened.
func TestClipIsGivenBack(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	r := clipRequest(t, 9, 30)
	first, second := submit(t, q, r), submit(t, q, r)
	stop := jobstest.Work(t, q, e)
	some := func(j jobs.Job) bool { return j.Progress != nil && j.Progress.Frame >= 4 }
	at := until(t, q, second.ID, some).Progress.Frame
	stop()
	j := until(t, q, second.ID, func(j jobs.Job) bool { return j.State == jobs.Queued })
	assert.Equal(t, []int{1}, j.Clip.Kept, "it is kept when the job is given back")
	jobstest.Work(t, q, e)
	given := *j.Progress
	j = until(t, q, j.ID, func(j jobs.Job) bool { return j.Attempts == 2 && *j.Progress != given })
	assert.GreaterOrEqual(t, j.Progress.Frame, at)
	sameClips(t, q, first.ID, j.ID)
}

// sameClips waits for two jobs, and holds them to be the same.
func sameClips(t *testing.T, q *jobs.Queue, first, second string) {
	want, got := until(t, q, first, finished), until(t, q, second, finished)
	require.Equal(t, jobs.Done, want.State, want.Error)
	require.Equal(t, jobs.Done, got.State, got.Error)
	assert.Equal(t, want.Result.Iterations, got.Result.Iterations)
	assert.Equal(t, want.Curve, got.Curve)
	expected, err := q.Picture(context.Background(), first, "result")
	require.NoError(t, err)
	made, err := q.Picture(context.Background(), second, "result")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(expected, made))
	nothingLeft(t)
}

// So it is if its worker is killed, again and again, and of its frames few are made twice.
func TestClipIsKilled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir(), Listen: nsttest.Address(t)})
	require.NoError(t, err)
	t.Cleanup(server.Close)
	f := newFarm(t, server.URL(), 1, 1)
	r := clipRequest(t, 14, 40)
	first, second := f.submit(r), f.submit(r)
	kept := func(n int) func(jobs.Job) bool {
		return func(j jobs.Job) bool { return j.State.Finished() || len(j.Clip.Kept) >= n }
	}
	for attempt := 1; attempt <= 2; attempt++ {
		until(t, f.queue, second.ID, kept(attempt))
		assert.NotEmpty(t, left(t))
		f.workers[0].restart()
	}
	j := until(t, f.queue, second.ID, finished)
	assert.Equal(t, 3, j.Attempts)
	assert.Len(t, j.Clip.Kept, 3)
	sameClips(t, f.queue, first.ID, second.ID)
}

// A clip that is cancelled leaves nothing of its frames, and its worker goes on.
func TestClipIsCancelled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx := context.Background()
	q, e := jobstest.Open(t, jobs.Config{CheckpointEvery: time.Millisecond}), jobstest.Engine(t)
	j := submit(t, q, clipRequest(t, 50, 40))
	jobstest.Work(t, q, e)
	until(t, q, j.ID, func(j jobs.Job) bool { return len(j.Clip.Kept) > 0 })
	_, err := q.Cancel(ctx, j.ID)
	require.NoError(t, err)
	after := submit(t, q, request(t, 64, 2))
	assert.Equal(t, jobs.Done, until(t, q, after.ID, finished).State)
	assert.Equal(t, jobs.Cancelled, until(t, q, j.ID, finished).State)
	nothingLeft(t)
}

// Clips that cannot be made are refused when they are submitted.
func TestClipLimits(t *testing.T) {
	ctx := context.Background()
	q := jobstest.Open(t, jobs.Config{MaxClipFrames: 5, MaxIterations: 100})
	file := func(t testing.TB, name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	good := nsttest.Clip(t, 2, ".mp4")
	for name, c := range map[string]struct {
		change func(*jobs.Request)
		says   string
	}{
		"a text":     {func(r *jobs.Request) { r.Clip = file(t, "clip", "no clip") }, "the clip is no video"},
		"not there":  {func(r *jobs.Request) { r.Clip = "/nowhere" }, "the clip stat /nowhere"},
		"a playlist": {func(r *jobs.Request) { r.Clip = file(t, "clip.m3u8", playlist) }, "the clip is no video"},
		"a list":     {func(r *jobs.Request) { r.Clip = file(t, "clip", concat) }, "the clip is no video"},
		"sound":      {func(r *jobs.Request) { r.Clip = sound(t) }, "the clip has no moving pictures"},
		"cut short":  {func(r *jobs.Request) { r.Clip = cut(t, good) }, "the clip is no video"},
		"too many": {func(r *jobs.Request) { r.Clip = nsttest.Clip(t, 6, ".mkv") },
			"the clip has 6 frames; at most 5"},
		"iterations":    {func(r *jobs.Request) { r.ClipOptions.FrameIterations = new(101) }, "at most 100"},
		"fewer than no": {func(r *jobs.Request) { r.ClipOptions.FrameIterations = new(-1) }, "0 or more"},
		"long term":     {func(r *jobs.Request) { r.ClipOptions.LongTerm = []int{2, 1} }, "ascending"},
		"passes":        {func(r *jobs.Request) { r.ClipOptions.Passes = 11 }, "1 to 10"},
		"container":     {func(r *jobs.Request) { r.ClipOptions.Container = "exe" }, "mp4, mov, mkv and webm"},
		"colours alone": {func(r *jobs.Request) { r.Options.Transfer = nst.TransferColor }, "do not follow"},
		"of a picture": {func(r *jobs.Request) { r.Clip, r.Content = "", jobstest.Content(t) },
			"are of a clip"},
	} {
		t.Run(name, func(t *testing.T) {
			r := clipRequest(t, 2, 2)
			r.Clip = good
			c.change(&r)
			_, _, err := q.Submit(ctx, r)
			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), t.TempDir()[:12], "where it lies is nobody's business")
		})
	}
	assert.Empty(t, q.List())
	t.Setenv("PATH", t.TempDir())
	_, _, err := q.Submit(ctx, jobs.Request{Clip: "/nowhere", Styles: [][]byte{{}}})
	require.ErrorIs(t, err, jobs.ErrNoClips)
}

// What names other files.
const (
	playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
	concat   = "ffconcat version 1.0\nfile /etc/passwd\n"
)

// sound is a file of it alone.
func sound(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "sound.mka")
	require.NoError(t, exec.Command("ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "sine", "-t", "0.1",
		path).Run())
	return path
}

// cut is the first half of a file.
func cut(t testing.TB, path string) string {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	half := filepath.Join(t.TempDir(), "half.mp4")
	require.NoError(t, os.WriteFile(half, data[:len(data)/2], 0o600))
	return half
}

// A clip counts as its frames do, and a key is of what is in it.
func TestClipQuota(t *testing.T) {
	ctx := context.Background()
	q := jobstest.Open(t, jobs.Config{})
	r := clipRequest(t, 3, 2)
	r.Owner = jobs.Owner{Name: "ann", PixelsADay: 64*48*6 + 10}
	r.Key, r.ClipOptions.Passes = "once", 2
	j := submit(t, q, r)
	again, created, err := q.Submit(ctx, r)
	require.NoError(t, err)
	assert.False(t, created)
	assert.Equal(t, j.ID, again.ID)
	r.Clip = nsttest.Clip(t, 2, ".mp4")
	_, _, err = q.Submit(ctx, r)
	require.ErrorIs(t, err, jobs.ErrKeyUsed)
	r.Key, r.ClipOptions.Passes = "", 0
	var quota *jobs.QuotaError
	_, _, err = q.Submit(ctx, r)
	require.ErrorAs(t, err, &quota)
	assert.Contains(t, err.Error(), "the job asks for 6144 pixels")
}

// A worker without ffmpeg leaves clips to others.
func TestClipWithoutFFmpeg(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	j := submit(t, q, clipRequest(t, 2, 1))
	t.Setenv("PATH", t.TempDir())
	jobstest.Work(t, q, e)
	after := submit(t, q, request(t, 64, 1)) // which it makes, the clip being another's
	assert.Equal(t, jobs.Done, until(t, q, after.ID, finished).State)
	j, err := q.Get(context.Background(), j.ID)
	require.NoError(t, err)
	assert.Equal(t, jobs.Queued, j.State)
	assert.Zero(t, j.Attempts)
}

// Of a clip that is cut short the frames that there are are made, and its job says so.
func TestClipIsCutShort(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	r := clipRequest(t, 2, 1)
	r.Clip = cut(t, nsttest.Clip(t, 12, ".webm"))
	j := submit(t, q, r)
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, finished)
	require.Equal(t, jobs.Done, j.State, j.Error)
	assert.Less(t, j.Result.Frames, 12)
	assert.Equal(t, j.Result.Frames, j.Progress.Frame)
	assert.Equal(t, j.Result.Frames, j.Clip.Frames)
	require.Len(t, j.Warnings, 1)
	assert.Regexp(t, `^the clip has \d+ frames that can be decoded`, j.Warnings[0])
}

// A clip for which there is too little memory fails as a picture does, and leaves nothing.
func TestClipFails(t *testing.T) {
	nsttest.Long(t)
	t.Setenv("TMPDIR", t.TempDir())
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	r := clipRequest(t, 2, 1)
	r.Options.Size, r.Options.MemoryLimit = new(256), 1<<20
	j := submit(t, q, r)
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, finished)
	assert.Equal(t, jobs.Failed, j.State)
	assert.Contains(t, j.Error, "memory")
	assert.Equal(t, 3, j.Attempts)
	nothingLeft(t)
}
