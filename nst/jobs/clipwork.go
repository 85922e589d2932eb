package jobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/video"
	"github.com/seed9bb5c928/nst/torch"
)

// segmentShare is how many times Config.CheckpointEvery lie, at least, between two segments
// of the frames that are done: each is an object more.
const segmentShare = 3

// clipRun is a clip that is being made.
type clipRun struct {
	*saver
	run   *video.Run
	dir   *Scratch
	began time.Time
	spent float64 // seconds of earlier attempts whose frames are here

	// Of the run's thread:
	first, done, all int              // frames, in all passes: done at the beginning, now, and to be
	latest           *picture.Picture // the last one

	// Of the saver's, and when that has ended the worker's:
	sent     int64 // bytes of the store that are kept
	segments int   // that this attempt has kept
}

// makeClip makes a clip, and stores the result. What it needs lies in a folder until then.
func (w *worker) makeClip(ctx, run context.Context, cancel context.CancelCauseFunc, j Job, o nst.Options,
	styles []*picture.Picture) (err error) {
	dir, err := NewScratch()
	if err != nil {
		return err
	}
	defer func() {
		if !errors.Is(err, ErrStuck) { // else it is in use, and removed when the next worker begins
			dir.Remove()
		}
	}()
	c := &clipRun{saver: w.saver(j, cancel), dir: dir, began: time.Now()}
	if err := c.open(ctx, run, o, styles); err != nil {
		return clipError(err, c.clip())
	}
	defer func() { err = errors.Join(err, c.run.Store.Close()) }()
	encoding, err := c.run.Clip.CheckOutput(run, c.result(), j.Width, j.Height, video.Encoding{})
	if err != nil {
		return err
	}
	if err := c.make(ctx, run); err != nil {
		return clipError(err, c.clip())
	}
	err = w.watch(ctx, c.signs, cancel, func() error {
		return w.try(func() error { return c.run.Write(run, c.result(), encoding, func(int) { c.sign() }) })
	})
	if err != nil {
		return c.stalled(run, err)
	}
	made, err := os.Stat(c.result())
	if err != nil {
		return err
	}
	return w.finish(ctx, run, c.saver, func(once context.Context) error {
		return w.queue.writeFile(once, j.ID, resultOf(w.attempt), c.result())
	}, func(j *Job) { c.note(j, made.Size()) })
}

// Names in the folder.
func (c *clipRun) clip() string   { return c.dir.Path("clip") }
func (c *clipRun) store() string  { return c.dir.Path("frames.tar") }
func (c *clipRun) result() string { return c.dir.Path("result." + c.job.Clip.container()) }

// open brings the clip, and the frames that earlier attempts have left.
func (c *clipRun) open(ctx, run context.Context, o nst.Options, styles []*picture.Picture) error {
	if err := c.fetch(run, clipName, c.clip()); err != nil {
		return err
	}
	w, j := c.worker, c.job
	look, cancel := context.WithTimeout(run, lookTime)
	defer cancel()
	clip, err := video.Probe(look, c.clip())
	if err != nil {
		return err
	}
	if int64(clip.Width)*int64(clip.Height) > w.decodingLimit()/frameMemory {
		return unusable("has frames of %d×%d pixels, which take more memory to decode than there is", clip.Width,
			clip.Height)
	}
	clip.Frames = j.Clip.Frames // as they were counted
	w.bound(&o)
	c.run = &video.Run{Engine: w.engine, Clip: clip, Styles: styles, Options: j.Clip.video(o),
		Passes: j.Clip.passes(), Limit: j.Clip.Frames + 1, Progress: c.frame, // one more: so the end is seen
		Warn:    func(message string) { c.warn(strings.ReplaceAll(message, clip.Path, "the clip")) },
		Reading: func(int) { c.sign() },
		Flow: func(ctx context.Context, from, to video.Numbered) ([]float32, error) {
			c.sign()
			return video.OwnFlow(ctx, from, to)
		},
		Hooks: nst.Hooks{StateEvery: w.every, Warn: c.warn, Tile: func(int, int) { c.sign() }, Progress: c.within}}
	if c.run.Store, err = c.restore(ctx, run); err != nil {
		return err
	}
	for pass := range c.run.Passes {
		for i := range j.Clip.Frames {
			made, ok := c.run.Store.Made(pass+1, i)
			if ok {
				c.first++
			}
			if ok && pass == 0 { // the record may not have it yet
				c.job.addPoint(Point{i + 1, max(j.Width, j.Height), made.Costs.Total}, &c.step)
			}
		}
	}
	c.done, c.all = c.first, j.Clip.Frames*c.run.Passes
	if c.first > 0 && j.Progress != nil {
		c.spent = j.Progress.Seconds
	}
	return nil
}

// fetch adds an object to a file.
func (c *clipRun) fetch(run context.Context, name, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	begin, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	err = c.worker.insistFor(run, 0, func(once context.Context) error {
		if err := f.Truncate(begin); err != nil { // what an earlier try has brought
			return err
		}
		if _, err := f.Seek(begin, io.SeekStart); err != nil {
			return err
		}
		once, cancel := context.WithCancelCause(once)
		defer cancel(nil)
		defer context.AfterFunc(run, func() { cancel(context.Cause(run)) })() // it may be large
		return c.worker.queue.copy(once, c.job.ID, name, f)
	})
	if errors.Is(err, ErrNotFound) { // of the object, not of the job
		err = errGone
	}
	if err != nil && name == clipName {
		return fmt.Errorf("the clip: %w", err)
	}
	return err
}

// restore opens the frames that are kept. Of segments that are gone or damaged those before
// are used, and frames that are none of ours are made anew.
func (c *clipRun) restore(ctx, run context.Context) (*video.Store, error) {
	identity := map[string]string{"job": c.job.ID}
	names, got := c.job.segments(false), 0
	for ; got < len(names); got++ {
		err := c.fetch(run, names[got], c.store())
		if errors.Is(err, errGone) || errors.Is(err, errDamaged) {
			c.log.Warn("frames that were kept cannot be used", "segment", names[got], "error", err)
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if got > 0 {
		info, err := os.Stat(c.store())
		if err != nil {
			return nil, err
		}
		store, err := video.OpenStore(c.store(), identity)
		if err == nil && got == len(names) && store.Bytes() == info.Size() {
			c.sent = info.Size()
			return store, nil
		}
		if err == nil && store.Bytes() == info.Size() {
			c.sent = info.Size()
			return store, c.forget(ctx, got)
		}
		if err == nil {
			err = errors.Join(errDamaged, store.Close())
		}
		c.log.Warn("the frames that were kept cannot be used: beginning anew", "error", err)
	}
	if len(names) > 0 {
		if err := c.forget(ctx, 0); err != nil {
			return nil, err
		}
		if err := os.Remove(c.store()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return video.CreateStore(c.store(), identity)
}

// forget leaves the first n segments alone.
func (c *clipRun) forget(ctx context.Context, n int) error {
	for _, name := range c.job.segments(false)[n:] {
		if err := c.worker.insist(ctx, func(once context.Context) error {
			return c.worker.queue.drop(once, object(c.job.ID, name))
		}); err != nil {
			return err
		}
	}
	_, err := c.worker.change(ctx, c.job.ID, c.worker.mine(func(j *Job) { j.Clip = j.Clip.first(n) }))
	return err
}

// make makes the frames. Those that are done are kept, whatever ends it.
func (c *clipRun) make(ctx, run context.Context) (err error) {
	saving := make(chan struct{})
	go func() { defer close(saving); c.work(ctx) }()
	transfer, span := tracer().Start(run, "transfer")
	err = c.worker.watch(ctx, c.signs, c.cancel, func() error {
		return c.worker.try(func() error {
			err := c.run.Make(transfer)
			if err == nil && c.latest != nil {
				c.send(saved{preview: c.latest}, true)
			}
			return err
		})
	})
	end(span, err)
	if errors.Is(err, ErrStuck) {
		return err // and the saver is left to what hangs
	}
	close(c.todo)
	<-saving
	if cause := context.Cause(run); !errors.Is(cause, errLost) && !errors.Is(cause, errCancelled) {
		if e := c.keep(c.run.Store.Bytes())(context.WithoutCancel(ctx)); e != nil {
			c.log.Warn("the frames that are done were not kept", "error", e)
		}
	}
	return c.stalled(run, err)
}

// stalled is the error of a run, which may have been ended for its silence.
func (c *clipRun) stalled(run context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(run), errStalled) {
		return errStalled
	}
	return err
}

// within is told of each iteration of a frame.
func (c *clipRun) within(p nst.Progress) {
	c.sign()
	c.worker.pace(p, 0)
	var next saved
	if c.done == 0 && p.State != nil && time.Since(c.preview) >= previewEvery { // the first frame takes longest
		if preview, err := p.State.Picture(); err == nil {
			next.preview, c.preview = preview, time.Now()
		}
	}
	c.report(p)
	c.send(next, false)
}

// report says how far the clip is.
func (c *clipRun) report(p nst.Progress) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	costs := p.Costs
	done, all, passed := float64(c.done)+p.Fraction, float64(c.all), time.Since(c.began).Seconds()
	now := &Progress{Frame: c.done, Frames: c.all, Scale: p.Scale, Iteration: p.Iteration, Iterations: p.Iterations,
		Fraction: min(1, done/all), Seconds: c.spent + passed}
	if did := done - float64(c.first); did > 0 {
		now.SecondsLeft = passed / did * max(0, all-done)
	}
	c.job.Costs, c.job.Progress = &costs, now
}

// frame is told of each frame that is done.
func (c *clipRun) frame(p video.Progress) {
	c.sign()
	now := time.Now()
	if c.checkpoint.IsZero() {
		c.checkpoint = c.began
	}
	c.done, c.all, c.latest = p.Done, p.Frames*p.Passes, p.Picture
	c.report(nst.Progress{Scale: max(p.Result.Width, p.Result.Height), Iteration: p.Iterations,
		Iterations: p.Iterations, Costs: p.Costs})
	c.mutex.Lock()
	c.job.addPoint(Point{c.done, max(p.Result.Width, p.Result.Height), p.Costs.Total}, &c.step)
	took := c.took
	c.mutex.Unlock()
	var next saved
	if now.Sub(c.preview) >= previewEvery {
		next.preview, c.preview = p.Picture, now
	}
	if now.Sub(c.checkpoint) >= max(segmentShare*c.worker.queue.config.CheckpointEvery, checkpointShare*took) {
		next.state, c.checkpoint = c.keep(c.run.Store.Bytes()), now
	}
	c.send(next, false)
	c.yield(c.done > c.first && c.done < c.all)
}

// keep writes what the store has up to there, and is not kept yet, as a segment.
func (c *clipRun) keep(end int64) func(context.Context) error {
	return func(ctx context.Context) error {
		if end <= c.sent {
			return nil
		}
		f, err := os.Open(c.store())
		if err != nil {
			return err
		}
		defer f.Close()
		attempt := c.job.Attempts
		err = c.worker.queue.write(ctx, c.job.ID, segmentName(attempt, c.segments+1),
			io.NewSectionReader(f, c.sent, end-c.sent))
		if err != nil {
			return err
		}
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var j Job
		err = c.worker.queue.edit(once, c.job.ID, &j, c.worker.mine(func(j *Job) {
			j.Clip = j.Clip.with(attempt, c.segments+1)
		}))
		if errors.Is(err, errLost) {
			c.cancel(errLost)
		}
		if err == nil {
			c.sent, c.segments = end, c.segments+1
			c.mutex.Lock()
			c.kept = true
			c.mutex.Unlock()
		}
		return err
	}
}

// note says in the record what there is now.
func (c *clipRun) note(j *Job, size int64) {
	r := &Result{Type: Containers[j.Clip.container()], Bytes: int(size),
		Seconds: c.spent + time.Since(c.began).Seconds()}
	r.Frames, r.Shots = c.run.Store.Count(0)
	for pass := range c.run.Passes {
		for i := range r.Frames {
			made, _ := c.run.Store.Made(pass+1, i)
			r.Iterations += made.Iterations
		}
	}
	if m, err := torch.MemoryOf(c.worker.engine.Device()); err == nil {
		r.PeakMemory = m.Peak
	}
	if r.Frames > j.Clip.Frames { // no decoder makes more of them than there are, but for one that is deceived
		j.Warnings = append(j.Warnings, fmt.Sprintf("the clip has more frames than the %d that were counted: "+
			"%d were made", j.Clip.Frames, r.Frames))
	}
	known := *j.Clip
	known.Frames = r.Frames
	j.Clip, j.Result = &known, r
	if j.Progress == nil { // all frames were there
		j.Progress = &Progress{}
	}
	j.Progress.Frame = r.Frames * c.run.Passes
	j.Progress.Frames, j.Progress.Seconds = j.Progress.Frame, r.Seconds
}
