package jobs_test

import (
	"bytes"
	"context"
	"strings"
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

func request(t testing.TB, size, iterations int) jobs.Request {
	return jobs.Request{
		Options: nst.Options{Size: &size, Iterations: &iterations, Scales: nst.ScalesOff},
		Content: jobstest.Content(t), Styles: [][]byte{jobstest.Style(t)},
	}
}

// until waits for a job to be so.
func until(t testing.TB, q *jobs.Queue, id string, so func(jobs.Job) bool) jobs.Job {
	changes, stop := q.Changes(id)
	defer stop()
	timeout := time.After(4 * time.Minute)
	for {
		j, err := q.Get(context.Background(), id)
		require.NoError(t, err)
		if so(j) {
			return j
		}
		select {
		case <-changes:
		case <-timeout:
			require.FailNow(t, "it does not come to that", "%+v", j)
		}
	}
}

func finished(j jobs.Job) bool { return j.State.Finished() }

func submit(t testing.TB, q *jobs.Queue, r jobs.Request) jobs.Job {
	j, created, err := q.Submit(context.Background(), r)
	require.NoError(t, err)
	require.True(t, created)
	return j
}

// A job's result is what the engine makes.
func TestJobIsMade(t *testing.T) {
	ctx := context.Background()
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	r := request(t, 64, 6)
	mask := picture.New(96, 72) // none at the left, all at the right
	for i := range mask.Pixels {
		mask.Pixels[i] = float32(i % 96 / 48)
	}
	var grey bytes.Buffer
	require.NoError(t, mask.Encode(&grey, picture.PNG, picture.Encoding{}))
	r.StrengthMask = grey.Bytes()
	j := submit(t, q, r)
	assert.Equal(t, jobs.Queued, j.State)
	_, err := q.Picture(ctx, j.ID, "result")
	require.ErrorIs(t, err, jobs.ErrNotReady)
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, finished)
	require.Equal(t, jobs.Done, j.State, j.Error)
	assert.Equal(t, 6, j.Result.Iterations)
	assert.Equal(t, 1, j.Attempts)
	assert.Equal(t, 1.0, j.Progress.Fraction)
	assert.NotEmpty(t, j.Curve)
	data, err := q.Picture(ctx, j.ID, "result")
	require.NoError(t, err)
	made, err := picture.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	content, err := picture.Decode(bytes.NewReader(r.Content))
	require.NoError(t, err)
	style, err := picture.Decode(bytes.NewReader(r.Styles[0]))
	require.NoError(t, err)
	o := r.Options
	o.StrengthMask = mask
	want, err := e.Stylize(ctx, content, []*picture.Picture{style}, o, nst.Hooks{})
	require.NoError(t, err)
	var wanted bytes.Buffer
	require.NoError(t, want.Picture.Encode(&wanted, picture.PNG, picture.Encoding{}))
	same, err := picture.Decode(&wanted)
	require.NoError(t, err)
	assert.Equal(t, same, made)
	preview, err := q.Picture(ctx, j.ID, "preview")
	require.NoError(t, err)
	info, err := picture.Inspect(preview)
	require.NoError(t, err)
	assert.Equal(t, "jpeg", info.Format)

	_, gone, err := q.Delete(ctx, j.ID)
	require.NoError(t, err)
	assert.True(t, gone)
	_, err = q.Get(ctx, j.ID)
	require.ErrorIs(t, err, jobs.ErrNotFound)
	assert.Empty(t, q.List())
}

// A worker that is told to end gives its job back, and another goes on with it.
func TestJobIsGivenBack(t *testing.T) {
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	j := submit(t, q, request(t, 96, 600))
	stop := jobstest.Work(t, q, e)
	until(t, q, j.ID, func(j jobs.Job) bool { return j.Progress != nil && j.Progress.Iteration > 3 })
	stop()
	j = until(t, q, j.ID, func(j jobs.Job) bool { return j.State == jobs.Queued })
	at := j.Progress.Iteration
	require.NotEmpty(t, j.Checkpoint)
	jobstest.Work(t, q, e)
	j = until(t, q, j.ID, func(j jobs.Job) bool { return j.Attempts == 2 && j.Progress.Iteration != at })
	assert.Greater(t, j.Progress.Iteration, at)
	j = until(t, q, j.ID, finished)
	assert.Equal(t, jobs.Done, j.State, j.Error)
	assert.Equal(t, 600, j.Result.Iterations)
}

func TestCancel(t *testing.T) {
	ctx := context.Background()
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	running, waiting := submit(t, q, request(t, 96, 5000)), submit(t, q, request(t, 96, 5))
	jobstest.Work(t, q, e)
	until(t, q, running.ID, func(j jobs.Job) bool { return j.Progress != nil && j.Preview > 0 })
	j, err := q.Cancel(ctx, waiting.ID)
	require.NoError(t, err)
	assert.Equal(t, jobs.Cancelled, j.State)
	_, err = q.Cancel(ctx, running.ID)
	require.NoError(t, err)
	j = until(t, q, running.ID, finished)
	assert.Equal(t, jobs.Cancelled, j.State)
	_, err = q.Picture(ctx, running.ID, "preview") // what there was stays
	assert.NoError(t, err)
	after := submit(t, q, request(t, 64, 2)) // the worker goes on
	assert.Equal(t, jobs.Done, until(t, q, after.ID, finished).State)
}

func TestLimits(t *testing.T) {
	ctx := context.Background()
	q := jobstest.Open(t, jobs.Config{MaxJobs: 2, MaxPixels: 1 << 20, MaxIterations: 100})
	r := request(t, 64, 2)
	r.Key = "once"
	first := submit(t, q, r)
	again, created, err := q.Submit(ctx, r)
	require.NoError(t, err)
	assert.False(t, created)
	assert.Equal(t, first.ID, again.ID)
	other := request(t, 80, 2)
	other.Key = "once"
	_, _, err = q.Submit(ctx, other)
	require.ErrorIs(t, err, jobs.ErrKeyUsed)
	submit(t, q, request(t, 64, 2))
	_, _, err = q.Submit(ctx, request(t, 64, 2))
	require.ErrorIs(t, err, jobs.ErrQueueFull)
	assert.Len(t, q.List(), 2)
	_, err = q.Cancel(ctx, first.ID) // which makes room
	require.NoError(t, err)
	submit(t, q, request(t, 64, 2))

	q = jobstest.Open(t, jobs.Config{MaxPixels: 1 << 20, MaxIterations: 100})
	for name, c := range map[string]struct {
		change func(*jobs.Request)
		says   string
	}{
		"result too large": {func(r *jobs.Request) { r.Options.Size = new(2000) }, "at most 1048576 pixels"},
		"iterations":       {func(r *jobs.Request) { r.Options.Iterations = new(101) }, "at most 100"},
		"option":           {func(r *jobs.Request) { r.Options.Preset = "best" }, `"best" is unknown`},
		"weights": {func(r *jobs.Request) { r.Options.StyleWeights = []float64{1, 2} },
			"are 2, for 1 style"},
		"no style": {func(r *jobs.Request) { r.Styles = nil }, "style 1 picture is missing"},
		"no picture": {func(r *jobs.Request) { r.Content = []byte("GIF89") },
			"the content picture is not a picture of a known format"},
		"cut short": {func(r *jobs.Request) { r.Styles[0] = r.Styles[0][:900] },
			"the style 1 picture is cut short"},
		"a claim too large": {func(r *jobs.Request) { r.Content = blank(t, 1200, 1000) }, "claims 1200×1000"},
		"too small":         {func(r *jobs.Request) { r.Content = blank(t, 7, 7) }, "needs at least 8×8"},
		"a mask alone":      {func(r *jobs.Request) { r.ContentMask = blank(t, 64, 64) }, "both or neither"},
		"a style mask that is missing": {func(r *jobs.Request) {
			r.ContentMask, r.StyleMasks = r.Content, [][]byte{nil}
		}, "the style mask 1 picture is empty"},
		"a mask of another aspect": {func(r *jobs.Request) {
			r.ContentMask, r.StyleMasks = blank(t, 64, 16), [][]byte{r.Styles[0]}
		}, "ContentMask is 64×16, of another aspect"},
		"soft without masks": {func(r *jobs.Request) { r.Options.MaskSoft = true }, "MaskSoft blends the regions"},
		"no start":           {func(r *jobs.Request) { r.Options.Start = nst.StartPicture }, "init"},
		"a start that is no": {func(r *jobs.Request) { r.Init = []byte("x") }, "the init picture is not"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, 64, 2)
			c.change(&r)
			_, _, err := q.Submit(ctx, r)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// blank is a PNG of a size.
func blank(t testing.TB, width, height int) []byte {
	var data bytes.Buffer
	require.NoError(t, picture.New(width, height).Encode(&data, picture.PNG, picture.Encoding{}))
	return data.Bytes()
}

// Two servers do not share a folder, and who joins a queue leaves it as it is.
func TestJoin(t *testing.T) {
	dir := t.TempDir()
	s, err := jobs.StartServer(jobs.ServerConfig{Dir: dir, Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer s.Close()
	_, err = jobs.StartServer(jobs.ServerConfig{Dir: dir})
	require.ErrorContains(t, err, "in use by another")

	ctx := context.Background()
	stranger, err := jobs.Connect(ctx, strings.Replace(s.URL(), "nats://", "nats://x", 1))
	require.Error(t, err, stranger)
	assert.NotContains(t, err.Error(), strings.Split(strings.TrimPrefix(s.URL(), "nats://"), "@")[0])
	nc, err := jobs.Connect(ctx, s.URL())
	require.NoError(t, err)
	defer nc.Close()
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = jobs.Open(short, nc, jobs.Config{Join: true})
	require.ErrorContains(t, err, "nobody keeps a queue here")
	keeper, err := jobs.Open(ctx, nc, jobs.Config{MaxJobs: 1, Patience: 7 * time.Second})
	require.NoError(t, err)
	defer keeper.Close()
	guest, err := jobs.Open(ctx, nc, jobs.Config{Join: true})
	require.NoError(t, err)
	defer guest.Close()
	assert.Equal(t, 7*time.Second, guest.Limits().Patience)
	submit(t, guest, request(t, 64, 1))
	_, _, err = guest.Submit(ctx, request(t, 64, 1))
	require.ErrorIs(t, err, jobs.ErrQueueFull)
}

// A store without room for what a job may need takes none.
func TestNoRoom(t *testing.T) {
	s, err := jobs.StartServer(jobs.ServerConfig{Dir: t.TempDir(), MaxBytes: 64 << 20})
	require.NoError(t, err)
	defer s.Close()
	nc, err := s.Connect()
	require.NoError(t, err)
	defer nc.Close()
	q, err := jobs.Open(context.Background(), nc, jobs.Config{MaxBytes: s.MaxBytes()})
	require.NoError(t, err)
	defer q.Close()
	submit(t, q, request(t, 64, 1))
	_, _, err = q.Submit(context.Background(), request(t, 1024, 1))
	require.ErrorIs(t, err, jobs.ErrNoSpace)
	assert.Len(t, q.List(), 1)
}

// What cannot be otherwise fails at once, what might be the third time.
func TestFailures(t *testing.T) {
	nsttest.Long(t)
	q, e := jobstest.Open(t, jobs.Config{}), jobstest.Engine(t)
	hopeless, starved := request(t, 64, 2), request(t, 256, 2)
	hopeless.Options.Precision = nst.TF32
	starved.Options.Tile, starved.Options.MemoryLimit = nst.TileOff, 1<<20
	first, second := submit(t, q, hopeless), submit(t, q, starved)
	jobstest.Work(t, q, e)
	j := until(t, q, first.ID, finished)
	assert.Equal(t, jobs.Failed, j.State)
	assert.Contains(t, j.Error, "tf32 is CUDA's")
	assert.Equal(t, 1, j.Attempts)
	j = until(t, q, second.ID, finished)
	assert.Equal(t, jobs.Failed, j.State)
	assert.Contains(t, j.Error, "memory")
	assert.Equal(t, 3, j.Attempts)
}
