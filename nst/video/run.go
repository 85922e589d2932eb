package video

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// Run makes a clip of a clip. Its callbacks, Hooks among them, never run at the same time; Flow
// does, with Beside. What panics there is then an error, a *torch.PanicError.
type Run struct {
	Engine *nst.Engine
	// Beside are more engines, each with devices of its own. With them shots are made at the
	// same time, each by one engine. The frames are the same, bit for bit, as those of one
	// engine on such a device.
	Beside  []*nst.Engine
	Clip    *Clip
	Styles  []*picture.Picture
	Options Options
	Flow    Flow // nil: OwnFlow
	// Store has the frames that are done, and takes those that are made.
	Store *Store
	// Passes is how often the clip is gone through, forward and back in turns; 0 means 1. A
	// pass after the first goes on from the results of the one before (algorithm 1 of Ruder
	// et al.).
	Passes int
	// Limit is how many frames are made, from the first on; 0: all.
	Limit int
	// Hooks are of each frame's transfer.
	Hooks nst.Hooks
	// Progress is told of each frame that is done. It may be nil.
	Progress func(Progress)
	// Reading is told of each frame of the clip when it is read for the first pass, and again to
	// be written. It may be nil.
	Reading func(index int)
	// Warn is told of what the run goes on in spite of. It may be nil.
	Warn func(message string)
}

// Progress is how far a Run is.
type Progress struct {
	Made
	Pass   int `json:"pass"` // from 1
	Passes int `json:"passes"`
	// Frames is how many there will be, as far as the clip says; 0: it does not.
	Frames int `json:"frames"`
	// Done is how many frames are done in all passes, with those of the run that was gone on
	// with.
	Done int `json:"done"`
	// Seconds is how long the frame took to make.
	Seconds float64 `json:"seconds"`
	// Picture is the frame as it is to be seen.
	Picture *picture.Picture `json:"-"`
}

// passes is how many there are.
func (r *Run) passes() int { return max(1, r.Passes) }

// Make makes the frames that the store does not have. When it returns an error, among them
// ctx's, the store has those that were done before.
func (r *Run) Make(ctx context.Context) error {
	sequence, err := NewSequence(r.Engine, r.Styles, r.Options, r.Flow)
	if err != nil {
		return err
	}
	r = r.serial()
	shots := newShots()
	if len(r.Beside) == 0 {
		err = r.firstPass(ctx, sequence, shots)
	} else {
		err = r.firstPassApart(ctx, sequence, shots)
	}
	for pass := 2; err == nil && pass <= r.passes(); pass++ {
		shots.again()
		err = r.onEach(ctx, func(ctx context.Context, engine *nst.Engine) error {
			return r.laterPass(ctx, engine, sequence, pass, shots)
		})
	}
	return err
}

// serial is the run with callbacks of which one runs at a time. Progress is told how many frames
// are done.
func (r *Run) serial() *Run {
	var turn sync.Mutex
	done := r.Store.done(r.Limit)
	all := *r
	if r.Progress != nil {
		all.Progress = inTurn(&turn, func(p Progress) {
			done++
			p.Done = done
			r.Progress(p)
		})
	}
	all.Reading, all.Warn = inTurn(&turn, r.Reading), inTurn(&turn, r.Warn)
	all.Hooks.Progress, all.Hooks.Warn = inTurn(&turn, r.Hooks.Progress), inTurn(&turn, r.Hooks.Warn)
	if r.Hooks.Tile != nil {
		all.Hooks.Tile = func(done, of int) {
			turn.Lock()
			defer turn.Unlock()
			r.Hooks.Tile(done, of)
		}
	}
	return &all
}

// inTurn is a callback that waits for others with the same turn.
func inTurn[T any](turn *sync.Mutex, call func(T)) func(T) {
	if call == nil {
		return nil
	}
	return func(v T) {
		turn.Lock()
		defer turn.Unlock()
		call(v)
	}
}

// frames calls do for each frame of the clip, up to the limit. It returns how many there are.
func (r *Run) frames(ctx context.Context, do func(i int, f *Frame) error) (n int, err error) {
	reader, err := r.Clip.Open(ctx)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for ; r.Limit == 0 || n < r.Limit; n++ {
		f, err := reader.Next()
		if errors.Is(err, io.EOF) {
			if said := reader.Damaged(); said != "" && r.Warn != nil {
				r.Warn(fmt.Sprintf("%s has %d frames that can be decoded: %s", r.Clip.Path, n, said))
			}
			break
		}
		if err == nil {
			if r.Reading != nil {
				r.Reading(n)
			}
			err = do(n, f)
		}
		if err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

// limited says whether fewer frames are made than the clip may have.
func (r *Run) limited() bool { return r.Limit > 0 && (r.Clip.Frames == 0 || r.Limit < r.Clip.Frames) }

// total is how many frames there will be, if the clip says it.
func (r *Run) total() int {
	if r.limited() {
		return r.Limit
	}
	return r.Clip.Frames
}

// firstPass makes the frames one after the other, which finds the shots.
func (r *Run) firstPass(ctx context.Context, sequence *Sequence, shots *shots) error {
	defer shots.close()
	_, err := r.frames(ctx, func(i int, f *Frame) error {
		made, err := r.one(ctx, sequence, 1, Input{Index: i, Picture: f.Picture}, r.total())
		if err == nil {
			shots.add(made)
		}
		return err
	})
	return err
}

// laterPass goes once more through one shot after the other on an engine, until all are taken:
// backwards, where the pass is even.
func (r *Run) laterPass(ctx context.Context, engine *nst.Engine, settled *Sequence, pass int, shots *shots) error {
	for s, ok := shots.next(); ok; s, ok = shots.next() {
		sequence := settled.shot(engine, 0)
		end := shots.end(s)
		for i := s.begin; i < end; i++ {
			in := Input{Index: i}
			if pass%2 == 0 {
				in.Index = end - 1 - (i - s.begin)
			}
			var err error
			if in.Picture, err = r.Store.Result(contentPass, in.Index); err != nil {
				return err
			}
			if in.Before, err = r.Store.Result(pass-1, in.Index); err != nil {
				return err
			}
			if _, err := r.one(ctx, sequence, pass, in, shots.frames); err != nil { // all of which are known
				return err
			}
		}
	}
	return nil
}

// one makes a frame, if it is not there yet.
func (r *Run) one(ctx context.Context, sequence *Sequence, pass int, in Input, total int) (Made, error) {
	if made, ok := r.Store.Made(pass, in.Index); ok {
		return made, sequence.Restore(ctx, in, made, func() (*picture.Picture, error) {
			return r.Store.Result(pass, in.Index)
		})
	}
	began := time.Now()
	made, err := sequence.Next(ctx, in, r.Hooks)
	if err != nil {
		return Made{}, err
	}
	if _, there := r.Store.Made(contentPass, in.Index); r.passes() > 1 && !there {
		content, err := sequence.content(ctx, in)
		if err == nil {
			err = r.Store.Add(contentPass, &Made{Index: in.Index, Result: content.Picture})
		}
		if err != nil {
			return Made{}, err
		}
	}
	if err := r.Store.Add(pass, made); err != nil {
		return Made{}, err
	}
	if r.Progress == nil {
		return *made, nil
	}
	shown, err := sequence.Finish(ctx, in, made.Result)
	if err == nil {
		r.Progress(Progress{Made: *made, Pass: pass, Passes: r.passes(), Frames: total,
			Seconds: time.Since(began).Seconds(), Picture: shown})
	}
	return *made, err
}

// Write writes the frames that were made to a clip with the sound and the times of the one
// that it is of. written, which may be nil, is told of each.
func (r *Run) Write(ctx context.Context, path string, e Encoding, written func(frames int)) (err error) {
	var w *Writer
	defer func() {
		if w != nil && err != nil {
			err = errors.Join(err, w.Abandon())
		}
	}()
	e.Short = e.Short || r.limited()
	err = r.finished(ctx, func(i int, p *picture.Picture, at Time) error {
		if w == nil {
			if w, err = r.Clip.Create(ctx, path, p.Width, p.Height, at, e); err != nil {
				return err
			}
		}
		if err := w.Write(p, at); err != nil {
			return err
		}
		if written != nil {
			written(i + 1)
		}
		return nil
	})
	if err == nil {
		err = w.Close()
	}
	return err
}

// FrameFile is the name that WriteFrames gives a frame, which is counted from 0: 000001.png and so
// on.
func FrameFile(frame int) string { return fmt.Sprintf("%06d.png", frame+1) }

// WriteFrames writes the frames that were made to a folder, each as FrameFile says.
func (r *Run) WriteFrames(ctx context.Context, folder string, e picture.Encoding, written func(frames int)) error {
	return r.finished(ctx, func(i int, p *picture.Picture, _ Time) error {
		err := picture.Replace(filepath.Join(folder, FrameFile(i)), func(w io.Writer) error {
			return p.Encode(w, picture.PNG, e)
		})
		if err == nil && written != nil {
			written(i + 1)
		}
		return err
	})
}

// finished calls do for each frame as it is to be seen.
func (r *Run) finished(ctx context.Context, do func(i int, p *picture.Picture, at Time) error) error {
	sequence, err := NewSequence(r.Engine, r.Styles, r.Options, r.Flow)
	if err != nil {
		return err
	}
	quiet := *r // what is damaged was told of when frames were made
	quiet.Warn = nil
	_, err = quiet.frames(ctx, func(i int, f *Frame) error {
		p, err := r.Store.Result(r.passes(), i)
		if err == nil {
			p, err = sequence.Finish(ctx, Input{Index: i, Picture: f.Picture}, p)
		}
		if err != nil {
			return err
		}
		return do(i, p, f.Time)
	})
	return err
}
