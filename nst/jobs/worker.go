package jobs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/picture/decoder"
	"github.com/seed9bb5c928/nst/torch"
)

const (
	presence        = 3 * time.Second  // a worker says so often that it is there
	absence         = 10 * time.Second // of one that has not said so for this long, nothing is known
	recordEvery     = 400 * time.Millisecond
	previewEvery    = 1500 * time.Millisecond
	checkpointShare = 10 // times what one takes, at least, from one to the next
	previewSide     = 768
	maxFailures     = 3 // of one kind
	allFailures     = 10
	maxDeaths       = 5 // without a newer checkpoint
)

// WorkerInfo is what a worker says of itself.
type WorkerInfo struct {
	Name   string `json:"name"`
	Device string `json:"device"`
	Job    string `json:"job,omitempty"`
	// Memory is that of the device in use by the worker, Free what is free, in bytes.
	Memory int64 `json:"memory_bytes"`
	Free   int64 `json:"free_bytes"`
	// SecondsPerIteration is of the job, lately; 0 without one.
	SecondsPerIteration float64   `json:"seconds_per_iteration"`
	Iterations          int64     `json:"iterations"`   // since it began
	Busy                float64   `json:"busy_seconds"` // that it has had jobs since it began
	At                  time.Time `json:"at"`
}

// Workers are those that have been heard of in the last ten seconds.
func (q *Queue) Workers(ctx context.Context) ([]WorkerInfo, error) {
	keys, err := q.workers.ListKeys(ctx)
	if err != nil {
		return nil, err
	}
	var all []WorkerInfo
	for key := range keys.Keys() {
		e, err := q.workers.Get(ctx, key)
		if err != nil {
			continue
		}
		var w WorkerInfo
		if json.Unmarshal(e.Value(), &w) == nil && time.Since(e.Created()) < absence {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b WorkerInfo) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// worker takes jobs, one at a time.
type worker struct {
	queue  *Queue
	engine *nst.Engine
	every  int // nst.Hooks.StateEvery

	attempt int   // of the job that it has
	lost    error // why its device is lost; nil: it is not

	mutex sync.Mutex
	info  WorkerInfo
	since time.Time // when it got the job that it has
}

// Work takes jobs from the queue and makes them with the engine, which keeps its
// network and what it knows of styles between them, until ctx is done: then the
// job that runs is kept as a checkpoint and goes back to the queue. name, which is
// to be unlike other workers' names, may be empty. The error is nil, ErrStuck, or matches
// torch.ErrDeviceLost: the job was given back, and this process can make no others.
func (q *Queue) Work(ctx context.Context, engine *nst.Engine, name string) error {
	if name == "" {
		host, _ := os.Hostname()
		name = fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
	}
	w := &worker{queue: q, engine: engine, every: 1, info: WorkerInfo{Name: name, Device: string(engine.Device())}}
	if engine.Device() != torch.CPU {
		w.every = 10 // to wait for each iteration leaves a GPU idle
	}
	ctx, cancel := context.WithCancel(ctx)
	var present sync.WaitGroup
	present.Go(func() { w.present(ctx) })
	stuck := false
	defer func() {
		cancel()
		if stuck { // whoever asks the device how much memory it has may wait for what hangs
			time.Sleep(time.Second)
			return
		}
		present.Wait()
	}()
	q.config.Log.Info("working", "worker", name, "device", w.info.Device)
	for ctx.Err() == nil {
		m, err := q.next(ctx)
		if err == nil {
			if err := w.take(ctx, m); err != nil {
				stuck = errors.Is(err, ErrStuck)
				return err
			}
		}
		if err != nil && ctx.Err() == nil {
			q.config.Log.Warn("no jobs can be had; trying again", "worker", name, "error", err)
			sleep(ctx, time.Second)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// present says that the worker is there.
func (w *worker) present(ctx context.Context) {
	key := hexName(w.info.Name)
	for ctx.Err() == nil {
		m, _ := torch.MemoryOf(w.engine.Device())
		w.mutex.Lock()
		w.info.Memory, w.info.Free, w.info.At = m.Allocated, m.Free, time.Now().UTC()
		w.count()
		value, _ := json.Marshal(w.info)
		w.mutex.Unlock()
		put, cancel := context.WithTimeout(ctx, presence/2)
		_, _ = w.queue.workers.Put(put, key, value)
		cancel()
		sleep(ctx, presence)
	}
	gone, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = w.queue.workers.Purge(gone, key)
}

// hexName is a name as a key.
func hexName(name string) string { return fmt.Sprintf("%x", name) }

// Causes of the end of a run.
var (
	errCancelled = errors.New("the job was cancelled")
	errLost      = errors.New("another worker has the job")
	errStalled   = errors.New("the transfer finished neither a tile nor an iteration for too long")
	errTime      = errors.New("the job has taken all the time that it may take")
	errTurn      = errors.New("it is another owner's turn")
)

// errNoFFmpeg is of a clip that this worker cannot make.
var errNoFFmpeg = errors.New("ffmpeg is not installed here, which clips need")

// newerDelay is how long a job that a newer program wrote, or a clip that this worker cannot
// make, waits for another.
const newerDelay = 30 * time.Second

// take deals with one message. The error is ErrStuck, and others will find that this worker has
// vanished, or that its device is lost.
func (w *worker) take(ctx context.Context, m jetstream.Msg) error {
	id := idOf(m.Subject())
	known, _ := w.queue.Get(ctx, id)
	known.ID = id
	log := w.queue.log(known).With("worker", w.info.Name)
	alive, died := context.WithCancel(context.WithoutCancel(ctx))
	var beat sync.WaitGroup
	beat.Go(func() {
		for alive.Err() == nil {
			_ = m.InProgress()
			sleep(alive, w.queue.config.Patience/4)
		}
	})
	j, err := w.job(ctx, id)
	died()
	beat.Wait()
	switch {
	case err == nil, errors.Is(err, ErrNotFound):
		log.Info("finished", "state", j.State, "error", j.Error)
		err = w.insist(ctx, func(ctx context.Context) error { return m.DoubleAck(ctx) })
	case errors.Is(err, ErrStuck):
		log.Error("it hangs; this worker ends", "stall", w.queue.config.Stall.String())
		_ = w.giveBack(m)
		return err
	case errors.Is(err, torch.ErrDeviceLost):
		err = w.giveBack(m)
	case errors.Is(err, errLost):
		log.Info("lost to another worker")
		err = nil
	case errors.Is(err, errVersion), errors.Is(err, errNoFFmpeg):
		log.Warn("left to another worker", "error", err)
		err = m.NakWithDelay(newerDelay)
	case ctx.Err() != nil, errors.Is(err, errTurn):
		log.Info("given back, with its checkpoint", "turn", errors.Is(err, errTurn))
		err = w.giveBack(m)
	default:
		log.Warn("it will be tried again", "error", err)
		err = m.NakWithDelay(time.Duration(1+len(j.Failures)) * time.Second)
	}
	if err != nil { // it will be delivered again, and found finished
		log.Warn("the server was not told", "error", err)
	}
	if w.lost != nil {
		log.Error("the device is lost; this worker ends", "error", w.lost)
	}
	return w.lost
}

// giveBack has a message delivered again, and returns when the server has read that: it may end
// with this process. Without a delay a server would not store it, and one that is started again
// would deliver the message when the patience is over.
func (w *worker) giveBack(m jetstream.Msg) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerWait)
	defer cancel()
	return errors.Join(m.NakWithDelay(time.Millisecond), w.queue.js.Conn().FlushWithContext(ctx))
}

// insist does something again until it succeeds, while a server may be away; even
// when ctx is done it tries for some time.
func (w *worker) insist(ctx context.Context, do func(context.Context) error) (err error) {
	return w.insistFor(ctx, 5*time.Second, do)
}

// insistFor gives each try so long; 0: as long as it takes, which do itself bounds.
func (w *worker) insistFor(ctx context.Context, try time.Duration, do func(context.Context) error) (err error) {
	for since := time.Now(); ; {
		once, cancel := context.WithCancel(context.WithoutCancel(ctx))
		if try > 0 {
			once, cancel = context.WithTimeout(once, try)
		}
		err = do(once)
		cancel()
		patience := 5 * time.Minute
		if ctx.Err() != nil {
			patience = 10 * time.Second
		}
		for _, final := range []error{errLost, ErrNoSpace, ErrNotFound, errDamaged, errVersion, errNoFFmpeg,
			context.Canceled} {
			if errors.Is(err, final) {
				return err
			}
		}
		if err == nil || time.Since(since) > patience {
			return err
		}
		w.queue.config.Log.Warn("the queue does not answer; trying again", "worker", w.info.Name, "error", err)
		time.Sleep(500 * time.Millisecond)
	}
}

// change reads the record anew, changes it and writes it, unless the job is
// another worker's.
func (w *worker) change(ctx context.Context, id string, do func(*Job) error) (j Job, err error) {
	err = w.insist(ctx, func(ctx context.Context) error {
		return w.queue.edit(ctx, id, &j, do)
	})
	return j, err
}

// mine has change only change the job while it is this worker's, and this attempt's.
func (w *worker) mine(do func(*Job)) func(*Job) error {
	return func(j *Job) error {
		if j.State != Running || j.Worker != w.info.Name || j.Attempts != w.attempt {
			return errLost
		}
		do(j)
		return nil
	}
}

// job makes a job, from its checkpoint if there is one. An error, other than that
// the job is lost or gone, has it tried again; others are the job's end.
func (w *worker) job(ctx context.Context, id string) (j Job, err error) {
	q := w.queue
	checkpoint := ""
	err = w.insist(ctx, func(once context.Context) error {
		before, err := q.load(once, id)
		if err != nil {
			return err
		}
		info, err := q.objects.GetInfo(once, object(id, before.checkpoint()))
		switch {
		case err == nil:
			checkpoint = info.NUID
		case errors.Is(err, jetstream.ErrObjectNotFound):
			err = nil
		}
		return err
	})
	if err != nil {
		return Job{}, err
	}
	j, err = w.change(ctx, id, func(j *Job) error {
		if j.State.Finished() {
			return nil
		}
		if kept := j.segments(false); len(kept) > 0 {
			checkpoint = kept[len(kept)-1]
		}
		if j.State == Running && j.vanished(checkpoint) {
			return nil
		}
		if j.Clip != nil && !TakesClips() {
			return errNoFFmpeg
		}
		now := time.Now().UTC()
		if j.Started == nil {
			j.Started = &now
		}
		j.State, j.Worker, j.Device, j.Began, j.Version = Running, w.info.Name, w.info.Device, &now, version
		j.Attempts++
		return nil
	})
	w.attempt = j.Attempts
	if err != nil || j.State.Finished() {
		return j, err
	}
	traced, span := j.span(ctx)
	defer func() { end(span, err) }()
	run, cancel := context.WithCancelCause(traced)
	defer cancel(nil)
	if left, limited := j.timeLeft(); limited && j.Clip != nil {
		defer time.AfterFunc(left, func() { cancel(errTime) }).Stop()
	}
	watcher, err := q.records.WatchFiltered(run, []string{"cancel." + id, id})
	if err != nil && ctx.Err() == nil {
		return w.failed(ctx, id, err)
	}
	if err != nil { // given back
		j, e := w.change(ctx, id, w.mine(func(j *Job) { j.State, j.Worker = Queued, "" }))
		return j, errors.Join(e, ctx.Err())
	}
	begun := j.Revision
	var watching sync.WaitGroup
	watching.Go(func() {
		for e := range watcher.Updates() {
			switch {
			case e == nil || e.Operation() != jetstream.KeyValuePut:
			case e.Key() != id:
				cancel(errCancelled)
			case e.Revision() > begun:
				if now, err := decode(e); err == nil && now.Worker != w.info.Name {
					cancel(errLost)
				}
			}
		}
	})
	defer watching.Wait()
	defer func() { _ = watcher.Stop() }()
	w.busy(id)
	defer w.busy("")

	var o nst.Options
	var content *picture.Picture
	var styles []*picture.Picture
	err = within(run, "inputs", func() (err error) {
		o, content, styles, err = w.inputs(run, j)
		return err
	})
	switch {
	case err != nil:
	case j.Clip != nil:
		err = w.makeClip(ctx, run, cancel, j, o, styles)
	default:
		err = w.stylize(ctx, run, cancel, j, o, content, styles)
	}
	if errors.Is(err, torch.ErrDeviceLost) {
		w.lost = err
	}
	switch cause := context.Cause(run); {
	case errors.Is(err, ErrStuck):
		return j, err
	case err == nil:
		return q.load(context.WithoutCancel(ctx), id)
	case errors.Is(cause, errLost), errors.Is(err, errLost):
		now, err := q.load(context.WithoutCancel(ctx), id)
		if err == nil && now.State.Finished() && now.Worker == w.info.Name { // it was cancelled, which is told later
			w.clean(ctx, now)
			return now, nil
		}
		return j, errLost
	case errors.Is(cause, errCancelled):
		now, err := q.load(context.WithoutCancel(ctx), id)
		w.clean(ctx, now)
		return now, err
	case ctx.Err() != nil, errors.Is(cause, errTurn): // given back
		j, e := w.change(ctx, id, w.mine(func(j *Job) { j.State, j.Worker = Queued, "" }))
		return j, cmp.Or(e, ctx.Err(), errTurn)
	case errors.Is(cause, errTime):
		err = fmt.Errorf("%w (%g seconds)", errTime, j.MaxSeconds)
	case w.lost != nil: // as if this worker had been killed: see vanished
		return j, err
	}
	return w.failed(ctx, id, err)
}

// vanished notes that a worker did so while it had the job, which has that checkpoint
// now, and says whether that is the job's end: too many did without a newer one.
func (j *Job) vanished(checkpoint string) bool {
	if checkpoint != j.DeathAt {
		j.Deaths = 0
	}
	if j.Deaths, j.DeathAt = j.Deaths+1, checkpoint; j.Deaths < maxDeaths {
		return false
	}
	what, at := "iteration", 0
	if j.Progress != nil {
		at = j.Progress.Iteration
	}
	if j.Clip != nil && j.Progress != nil {
		what, at = "frame", j.Progress.Frame
	}
	j.Error = fmt.Sprintf("workers vanished %d times in a row while they had it, without keeping a newer state, "+
		"the last one after %s %d", j.Deaths, what, at)
	j.finish(Failed)
	return true
}

func (w *worker) busy(id string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.info.Job, w.info.SecondsPerIteration = id, 0
	w.count()
	if w.since = time.Now(); id == "" {
		w.since = time.Time{}
	}
}

// count adds the time that the worker has had its job.
func (w *worker) count() {
	if now := time.Now(); !w.since.IsZero() {
		w.info.Busy += now.Sub(w.since).Seconds()
		w.since = now
	}
}

// clean deletes what only a run needs.
func (w *worker) clean(ctx context.Context, j Job) {
	patience := time.Duration(1+len(j.segments(true))/100) * 10 * time.Second
	once, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = w.queue.drop(once, object(j.ID, j.checkpoint()))
	_ = w.queue.dropSegments(once, j)
	_ = w.queue.records.Purge(once, "cancel."+j.ID)
}

// failed notes a failure. Of what cannot be otherwise the next time, and of what
// was the same several times, the job has failed.
func (w *worker) failed(ctx context.Context, id string, failure error) (Job, error) {
	text := failure.Error()
	memory := errors.Is(failure, torch.ErrOutOfMemory) // how much was wanted differs
	const outOfMemory = "out of memory"
	if memory && !strings.Contains(text, outOfMemory) {
		text = outOfMemory + ": " + text
	}
	j, err := w.change(ctx, id, w.mine(func(j *Job) {
		j.Failures = append(j.Failures, text)
		same := 0
		for _, f := range j.Failures {
			if f == text || memory && strings.Contains(f, outOfMemory) {
				same++
			}
		}
		hopeless := errors.Is(failure, nst.ErrInvalidOption) || errors.Is(failure, picture.ErrPicture) ||
			errors.Is(failure, nst.ErrDiverged) || errors.Is(failure, errGone) || errors.Is(failure, errDamaged) ||
			errors.Is(failure, errTime)
		if same < maxFailures && len(j.Failures) < allFailures && !hopeless {
			j.State, j.Worker = Queued, ""
			return
		}
		j.Error = text
		j.finish(Failed)
	}))
	if err != nil {
		return j, err
	}
	if j.State == Failed {
		w.clean(ctx, j)
		return j, nil
	}
	return j, failure
}

// inputs read a job's pictures and its checkpoint; of a clip there is neither content nor
// checkpoint.
func (w *worker) inputs(ctx context.Context, j Job) (o nst.Options, content *picture.Picture, styles []*picture.Picture,
	err error) {
	read := func(name string) *picture.Picture {
		if err != nil {
			return nil
		}
		var data []byte
		err = w.insistFor(ctx, 0, func(once context.Context) (err error) {
			data, err = w.queue.read(once, j.ID, name)
			return err
		})
		if errors.Is(err, ErrNotFound) { // of the picture, not of the job
			err = errGone
		}
		if err != nil {
			err = fmt.Errorf("the %s picture: %w", name, err)
			return nil
		}
		p, e := w.queue.decoder.Decode(ctx, decoder.Request{Data: data, Memory: w.decodingLimit()})
		if err = e; errors.Is(e, picture.ErrPicture) {
			err = &PictureError{name, e}
		}
		return p
	}
	o = j.Options
	if j.Clip == nil {
		content = read("content")
	}
	for i := range j.Inputs.Styles {
		styles = append(styles, read(numbered("style", i)))
	}
	if j.Inputs.ContentMask {
		o.ContentMask = read("content-mask")
	}
	if j.Inputs.StrengthMask {
		o.StrengthMask = read("strength-mask")
	}
	for i := range j.Inputs.StyleMasks {
		o.StyleMasks = append(o.StyleMasks, read(numbered("style-mask", i)))
	}
	if j.Inputs.Init {
		o.Picture = read("init")
	}
	if err != nil || j.Clip != nil {
		return o, content, styles, err
	}
	var data []byte
	err = w.insistFor(ctx, 0, func(once context.Context) (err error) {
		data, err = w.queue.read(once, j.ID, j.checkpoint())
		return err
	})
	switch {
	case err == nil:
		o.Resume, err = nst.ReadCheckpoint(bytes.NewReader(data))
	case errors.Is(err, ErrNotFound): // there is none
		return o, content, styles, nil
	case !errors.Is(err, errDamaged):
		return o, nil, nil, fmt.Errorf("the checkpoint: %w", err)
	}
	if err != nil {
		w.queue.log(j).Warn("the checkpoint cannot be used: beginning anew", "error", err)
		o.Resume = nil
	}
	return o, content, styles, nil
}

// decodingLimit is what decoding a picture may take of the host's memory.
func (w *worker) decodingLimit() int64 {
	m, err := torch.MemoryOf(torch.CPU)
	if err != nil {
		return 0
	}
	left := m.Free * 8 / 10
	if limit := w.queue.config.MemoryLimit; limit > 0 && w.engine.Device() == torch.CPU {
		left = min(left, limit-m.Allocated)
	}
	return max(1, left)
}

// errGone is the error of a picture that the store does not have any more.
var errGone = errors.New("is gone from the store")

// stylize runs the transfer, and stores what it makes.
func (w *worker) stylize(ctx, run context.Context, cancel context.CancelCauseFunc, j Job, o nst.Options,
	content *picture.Picture, styles []*picture.Picture) error {
	s := w.saver(j, cancel)
	resumed := 0
	if o.Resume != nil {
		resumed = o.Resume.Iteration()
	}
	w.bound(&o)
	var saving sync.WaitGroup
	saving.Go(func() { s.work(ctx) })
	transfer, span := tracer().Start(run, "transfer")
	steps := iterations{transfer, time.Now()}
	begin := sync.OnceFunc(func() { // not before there is a picture
		if left, limited := j.timeLeft(); limited {
			timer := time.AfterFunc(left, func() { cancel(errTime) })
			context.AfterFunc(run, func() { timer.Stop() })
		}
	})
	hooks := nst.Hooks{StateEvery: w.every, Warn: s.warn, Tile: func(int, int) { s.sign() },
		Progress: func(p nst.Progress) {
			s.sign()
			begin()
			steps.add(p)
			back := ctx.Err() != nil || errors.Is(context.Cause(run), errTurn)
			s.report(p, p.Last && back && context.Cause(run) != errCancelled, resumed)
			w.pace(p, resumed)
			s.yield(p.Iteration > resumed)
		}}
	var result *nst.Result
	err := w.watch(ctx, s.signs, cancel, func() error {
		return w.try(func() (err error) {
			result, err = w.engine.Stylize(run, content, styles, o, hooks)
			return err
		})
	})
	end(span, err)
	if errors.Is(err, ErrStuck) {
		return err // and s is left to what hangs
	}
	close(s.todo)
	saving.Wait()
	if errors.Is(err, nst.ErrCheckpoint) && o.Resume != nil { // of another machine's version, say
		w.queue.log(j).Warn("the checkpoint cannot be gone on from: beginning anew", "error", err)
		w.clean(ctx, j)
		o.Resume = nil
		return w.stylize(ctx, run, cancel, j, o, content, styles)
	}
	cause := context.Cause(run)
	switch {
	case err != nil && errors.Is(cause, errStalled):
		return errStalled
	case errors.Is(err, context.Canceled) && errors.Is(cause, errTime) && result != nil && result.Picture != nil:
		s.warn(fmt.Sprintf("ended after %d iterations: %v (%g seconds)", result.Iterations, errTime, j.MaxSeconds))
	case err != nil:
		return err
	case errors.Is(cause, errLost), errors.Is(cause, errCancelled):
		return cause
	}
	comment, err := o.Record()
	if err != nil {
		return err
	}
	var encoded bytes.Buffer
	if err := result.Picture.Encode(&encoded, picture.PNG, picture.Encoding{Comment: comment}); err != nil {
		return err
	}
	data := encoded.Bytes()
	return w.finish(ctx, run, s, func(once context.Context) error {
		return w.queue.write(once, j.ID, resultOf(w.attempt), bytes.NewReader(data))
	}, func(j *Job) {
		j.Costs = &result.Costs
		j.Width, j.Height = result.Picture.Width, result.Picture.Height
		j.Result = &Result{Bytes: len(data), Iterations: result.Iterations, Seconds: result.Seconds,
			PeakMemory: result.PeakMemory, Tiles: result.Tiles}
	})
}

// finish stores the result, and then says in the record that the job is done.
func (w *worker) finish(ctx, run context.Context, s *saver, store func(context.Context) error, note func(*Job)) error {
	err := within(run, "store result", func() error { return w.insistFor(ctx, 0, store) })
	if err != nil {
		return err
	}
	j, err := w.change(ctx, s.job.ID, w.mine(func(j *Job) {
		s.fill(j)
		note(j)
		j.ResultName = resultOf(w.attempt)
		if j.Progress != nil {
			j.Progress.Fraction, j.Progress.SecondsLeft = 1, 0
		}
		j.finish(Done)
	}))
	if errors.Is(err, errLost) {
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = w.queue.drop(once, object(s.job.ID, resultOf(w.attempt)))
	}
	if err == nil {
		w.clean(ctx, j)
	}
	return err
}

// pace notes how fast the worker's job goes on.
func (w *worker) pace(p nst.Progress, resumed int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.info.Iterations++
	if n := p.Iteration - resumed; n > 0 && p.Seconds > 0 {
		w.info.SecondsPerIteration = p.Seconds / float64(p.Iteration)
	}
}

// bound keeps a job's options to the operator's limit or, without one, to what is free:
// a client can only ask for less.
func (w *worker) bound(o *nst.Options) {
	if o.Tile == nst.TileOff {
		o.Tile = nst.TileAuto
	}
	limit := w.memoryLimit()
	if o.MemoryLimit == 0 || int64(o.MemoryLimit) > limit {
		o.MemoryLimit = nst.Bytes(limit)
	}
}

// memoryLimit is what the process may use of its device's memory.
func (w *worker) memoryLimit() int64 {
	m, err := torch.MemoryOf(w.engine.Device())
	limit := w.queue.config.MemoryLimit
	if err != nil || m.Free == 0 {
		return limit
	}
	if free := m.Allocated + m.Free*8/10; limit == 0 || limit > free {
		limit = free
	}
	return limit
}

// watch does something that gives signs of life. Of what gives none for too long it is not
// waited for any longer, if it does not heed the end of its context either. When ctx is done,
// it has a minute to end.
func (w *worker) watch(ctx context.Context, signs <-chan struct{}, cancel context.CancelCauseFunc,
	do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	stall := w.queue.config.Stall
	timer := time.NewTimer(stall)
	defer timer.Stop()
	told, cancelled := ctx.Done(), false
	const grace = time.Minute // after which it is to have ended
	for {
		select {
		case <-told:
			cancelled, told, stall = true, nil, min(stall, grace)
			timer.Reset(stall)
		case err := <-done:
			return err
		case <-signs:
			timer.Reset(stall)
		case <-timer.C:
			if cancelled {
				return ErrStuck
			}
			cancelled, stall = true, min(stall, grace)
			cancel(errStalled)
			timer.Reset(stall)
		}
	}
}

// try does something of which a panic is an error: it is one job's.
func (w *worker) try(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.queue.config.Log.Error("a transfer panicked", "panic", fmt.Sprint(p))
			err = errors.New("an error in the program ended the transfer; the worker's log has it")
		}
	}()
	return do()
}

// saver writes what a run tells of, on a goroutine of its own, so that the run does
// not wait; what comes while it writes replaces what waits.
type saver struct {
	worker *worker
	cancel context.CancelCauseFunc
	todo   chan saved
	signs  chan struct{} // of life
	log    *slog.Logger

	mutex sync.Mutex
	job   Job  // its progress, costs, curve and warnings
	step  int  // of the curve
	kept  bool // what this attempt did can be gone on from

	written int // checkpoints, by whoever writes

	// Of the run's thread:
	preview, checkpoint time.Time // when the last ones were handed over
	took                time.Duration
	began, others       time.Time // when the attempt began, and since when others wait; zero: none do
}

// saved is what is to be written.
type saved struct {
	preview *picture.Picture
	state   func(context.Context) error // writes what the job can be gone on from
}

func (w *worker) saver(j Job, cancel context.CancelCauseFunc) *saver {
	return &saver{worker: w, job: j, cancel: cancel, todo: make(chan saved, 1), signs: make(chan struct{}, 1),
		log: w.queue.log(j), began: time.Now()}
}

// yield has the job put back if it has had its turn, jobs of others wait that no other worker
// takes, and it has gone on and kept that, so that it will end in spite of them.
func (s *saver) yield(further bool) {
	now := time.Now()
	s.mutex.Lock()
	turn, kept, mine := max(s.worker.queue.config.Turn, checkpointShare*s.took), s.kept, s.job
	s.mutex.Unlock()
	if !further || !kept || now.Sub(s.began) < turn || !s.worker.queue.othersWait(mine) {
		s.others = time.Time{}
		return
	}
	if s.others.IsZero() {
		s.others = now
	}
	if now.Sub(s.others) > othersTime {
		s.cancel(errTurn)
	}
}

// othersTime is how long another worker has to take the jobs of others.
const othersTime = 2 * time.Second

// sign says that the run lives.
func (s *saver) sign() {
	select {
	case s.signs <- struct{}{}:
	default:
	}
}

func (s *saver) warn(message string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if len(s.job.Warnings) < 10 && !slices.Contains(s.job.Warnings, message) {
		s.job.Warnings = append(s.job.Warnings, message)
	}
}

// report is the run's. At last, what has to be written is waited for.
func (s *saver) report(p nst.Progress, last bool, resumed int) {
	now := time.Now()
	if s.preview.IsZero() {
		s.preview, s.checkpoint = now.Add(-previewEvery), now
	}
	s.mutex.Lock()
	costs := p.Costs
	s.job.Costs = &costs
	s.job.Progress = &Progress{Scale: p.Scale, Iteration: p.Iteration, Iterations: p.Iterations, Fraction: p.Fraction,
		Seconds: p.Seconds}
	if p.Fraction > 0 {
		s.job.Progress.SecondsLeft = p.Seconds * (1 - p.Fraction) / p.Fraction
	}
	s.job.addPoint(Point{p.Iteration, p.Scale, p.Total}, &s.step)
	took := s.took
	s.mutex.Unlock()
	var next saved
	if p.State != nil && (now.Sub(s.preview) >= previewEvery || p.Last) {
		if preview, err := p.State.Picture(); err == nil {
			next.preview, s.preview = preview, now
		}
	}
	due := now.Sub(s.checkpoint) >= max(s.worker.queue.config.CheckpointEvery, checkpointShare*took)
	if p.State != nil && (due && !p.Last && p.Iteration > resumed || last) {
		c, err := p.State.Checkpoint()
		if err == nil {
			next.state, s.checkpoint = s.writing(c), now
		}
	}
	s.send(next, p.Last)
}

// writing writes a checkpoint.
func (s *saver) writing(c *nst.Checkpoint) func(context.Context) error {
	return func(ctx context.Context) error {
		var data bytes.Buffer
		if _, err := c.WriteTo(&data); err != nil {
			return err
		}
		return s.keepAs(ctx, &data)
	}
}

// keepAs stores a checkpoint under a name of its own, and then says in the record that it counts,
// if the job is still this attempt's. The one before goes.
func (s *saver) keepAs(ctx context.Context, data io.Reader) error {
	w := s.worker
	s.written++
	name := checkpointOf(s.job.Attempts, s.written)
	if err := w.queue.write(ctx, s.job.ID, name, data); err != nil {
		return err
	}
	once, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var now Job
	before := ""
	err := w.queue.edit(once, s.job.ID, &now, w.mine(func(j *Job) { before, j.Checkpoint = j.checkpoint(), name }))
	if errors.Is(err, errLost) || errors.Is(err, ErrNotFound) {
		s.cancel(errLost)
		return errors.Join(errLost, w.queue.drop(once, object(s.job.ID, name)))
	}
	if err != nil { // it may count or not: tidy will see
		return err
	}
	s.mutex.Lock()
	s.kept = true
	s.mutex.Unlock()
	return w.queue.drop(once, object(s.job.ID, before))
}

// send hands over what is to be written, if nothing is being written, or waits.
func (s *saver) send(next saved, wait bool) {
	for wait { // what is being written may take long
		select {
		case s.todo <- next:
			return
		case <-time.After(time.Second):
			s.sign()
		}
	}
	if next.state != nil {
		select { // a preview that waits may go
		case <-s.todo:
		default:
		}
	}
	select {
	case s.todo <- next:
	default:
	}
}

// fill copies what the run has told of to a record.
func (s *saver) fill(j *Job) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	j.Progress, j.Costs, j.Curve = s.job.Progress, s.job.Costs, slices.Clone(s.job.Curve)
	j.Preview, j.Warnings = s.job.Preview, s.job.Warnings
	if j.Progress != nil {
		copied := *j.Progress
		j.Progress = &copied
	}
}

// work writes until todo is closed.
func (s *saver) work(ctx context.Context) {
	var recorded time.Time
	for next := range s.todo {
		s.write(ctx, next)
		if next.preview == nil && time.Since(recorded) < recordEvery {
			continue
		}
		recorded = time.Now()
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		var j Job
		err := s.worker.queue.edit(once, s.job.ID, &j, s.worker.mine(s.fill))
		cancel()
		if errors.Is(err, errLost) || errors.Is(err, ErrNotFound) {
			s.cancel(errLost)
		}
	}
}

// write stores a preview and a state. Failing is no failure of the run: there
// will be others.
func (s *saver) write(ctx context.Context, next saved) {
	log := s.log
	once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if next.preview != nil {
		var data bytes.Buffer
		err := next.preview.Shrunk(previewSide).Encode(&data, picture.JPEG, picture.Encoding{Quality: 85})
		if err == nil {
			_, err = s.worker.queue.previews.Put(once, s.job.ID, data.Bytes())
		}
		if err != nil {
			log.Warn("a preview was not stored", "error", err)
		} else {
			s.mutex.Lock()
			s.job.Preview++
			s.mutex.Unlock()
		}
	}
	if next.state == nil {
		return
	}
	began := time.Now()
	if err := next.state(context.WithoutCancel(ctx)); err != nil { // however long it takes, if it goes on
		log.Warn("a checkpoint was not stored", "error", err)
	}
	s.mutex.Lock()
	s.took = time.Since(began)
	s.mutex.Unlock()
}
