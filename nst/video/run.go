package video

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// Run makes a clip of a clip.
type Run struct {
	Engine  *nst.Engine
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
	// Reading is told of each frame of the clip that is read, in each pass. It may be nil.
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
	count, shots, err := r.firstPass(ctx)
	if err != nil {
		return err
	}
	for pass := 2; pass <= r.passes(); pass++ {
		for i, begin := range shots {
			end := count
			if i+1 < len(shots) {
				end = shots[i+1]
			}
			if err := r.laterPass(ctx, pass, begin, end, count); err != nil {
				return err
			}
		}
	}
	return nil
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

// firstPass makes the frames one after the other. It returns how many there are, and where
// shots begin.
func (r *Run) firstPass(ctx context.Context) (count int, shots []int, err error) {
	sequence, err := NewSequence(r.Engine, r.Styles, r.Options, r.Flow)
	if err != nil {
		return 0, nil, err
	}
	count, err = r.frames(ctx, func(i int, f *Frame) error {
		made, err := r.one(ctx, sequence, 1, Input{Index: i, Picture: f.Picture}, r.total(), i+1)
		if err == nil && made.Cut {
			shots = append(shots, i)
		}
		return err
	})
	return count, shots, err
}

// laterPass goes once more through a shot of a clip of count frames: backwards, where the
// pass is even.
func (r *Run) laterPass(ctx context.Context, pass, begin, end, count int) error {
	sequence, err := NewSequence(r.Engine, r.Styles, r.Options, r.Flow)
	if err != nil {
		return err
	}
	for k := range end - begin {
		i := begin + k
		if pass%2 == 0 {
			i = end - 1 - k
		}
		frame, err := r.Store.Result(contentPass, i)
		if err != nil {
			return err
		}
		before, err := r.Store.Result(pass-1, i)
		if err != nil {
			return err
		}
		done := (pass-1)*count + begin + k + 1
		in := Input{Index: i, Picture: frame, Before: before}
		if _, err := r.one(ctx, sequence, pass, in, count, done); err != nil {
			return err
		}
	}
	return nil
}

// contentPass is the place of the clip's own frames in the store, if there are later passes.
const contentPass = 0

// one makes a frame, if it is not there yet.
func (r *Run) one(ctx context.Context, sequence *Sequence, pass int, in Input, total, done int) (Made, error) {
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
		r.Progress(Progress{Made: *made, Pass: pass, Passes: r.passes(), Frames: total, Done: done,
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

// WriteFrames writes the frames that were made to a folder, as 000001.png and so on.
func (r *Run) WriteFrames(ctx context.Context, folder string, e picture.Encoding, written func(frames int)) error {
	return r.finished(ctx, func(i int, p *picture.Picture, _ Time) error {
		err := picture.Replace(filepath.Join(folder, fmt.Sprintf("%06d.png", i+1)), func(w io.Writer) error {
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
	_, err = r.frames(ctx, func(i int, f *Frame) error {
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
