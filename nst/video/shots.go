package video

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/torch"
)

// shot is a part of a clip between two cuts.
type shot struct {
	place int     // among the shots, from 0
	begin int     // its first frame
	known float64 // Made.Known of that
}

// shots are those of a clip, as far as they are found, which go to the engines in order.
type shots struct {
	mutex  sync.Mutex
	found  *sync.Cond // something was
	all    []shot
	frames int  // of which it is known what shot they are of
	closed bool // and no more will be
	taken  int  // of all
}

func newShots() *shots {
	s := &shots{}
	s.found = sync.NewCond(&s.mutex)
	return s
}

// add adds the clip's next frame.
func (s *shots) add(m Made) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if m.Cut {
		s.all = append(s.all, shot{place: len(s.all), begin: m.Index, known: m.Known})
	}
	s.frames++
	s.found.Broadcast()
}

// close is when there are no more frames, or no more are looked for: nobody waits for them.
func (s *shots) close() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.closed = true
	s.found.Broadcast()
}

// next takes the next shot, when it is found; ok says whether there is one.
func (s *shots) next() (next shot, ok bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for s.taken == len(s.all) && !s.closed {
		s.found.Wait()
	}
	if s.taken == len(s.all) {
		return shot{}, false
	}
	s.taken++
	return s.all[s.taken-1], true
}

// again has all shots taken once more.
func (s *shots) again() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.taken = 0
}

// has says whether a frame, the first or one that follows one of a shot's, is the shot's too,
// when that is known.
func (s *shots) has(of shot, frame int) bool {
	s.mutex.Lock()
	for s.frames <= frame && !s.closed {
		s.found.Wait()
	}
	s.mutex.Unlock()
	return frame < s.end(of)
}

// end is the frame after a shot's last one, as far as frames are known.
func (s *shots) end(of shot) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if next := of.place + 1; next < len(s.all) {
		return s.all[next].begin
	}
	return s.frames
}

// onEach has each engine do work, and several of them something else beside it, all at the same
// time. The first error, or panic, ends the others, and is what it returns.
func (r *Run) onEach(ctx context.Context, work func(context.Context, *nst.Engine) error,
	beside ...func(context.Context) error) error {
	if len(r.Beside) == 0 {
		return work(ctx, r.Engine) // whose panics are the caller's
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range append([]*nst.Engine{r.Engine}, r.Beside...) {
		group.Go(func() error { return torch.Recovered(func() error { return work(ctx, e) }) })
	}
	for _, do := range beside {
		group.Go(func() error { return torch.Recovered(func() error { return do(ctx) }) })
	}
	return group.Wait()
}

// firstPassApart makes shots on each engine, while they are found. If looking for them fails,
// what was found until then is made, as one engine would have.
func (r *Run) firstPassApart(ctx context.Context, sequence *Sequence, shots *shots) error {
	var looking error
	err := r.onEach(ctx, func(ctx context.Context, engine *nst.Engine) error {
		return r.makeShots(ctx, engine, sequence, shots)
	}, func(ctx context.Context) error {
		looking = r.findShots(ctx, sequence, shots)
		return nil
	})
	if err == nil {
		err = looking
	}
	return err
}

// findShots goes through the clip and finds where shots begin, as making its frames would. It
// has a thread of its own on the CPU, where the flow is found: the engines need not wait.
func (r *Run) findShots(ctx context.Context, sequence *Sequence, shots *shots) error {
	defer shots.close()
	thread := torch.StartThread(torch.CPU)
	defer thread.Close()
	sequence.do = thread.Do
	_, err := r.frames(ctx, func(i int, f *Frame) (err error) {
		in := Input{Index: i, Picture: f.Picture}
		made, ok := r.Store.Made(1, i)
		if ok {
			err = sequence.Restore(ctx, in, made, nil)
		} else {
			made, err = sequence.look(ctx, in)
		}
		if err == nil {
			shots.add(made)
		}
		return err
	})
	return err
}

// makeShots makes one shot after the other on an engine, until all are taken. It reads the clip
// once, from the beginning, and passes over the frames of others.
func (r *Run) makeShots(ctx context.Context, engine *nst.Engine, settled *Sequence, shots *shots) error {
	reader, err := r.Clip.Open(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	for s, ok := shots.next(); ok; s, ok = shots.next() {
		sequence := settled.shot(engine, s.known)
		for i := s.begin; shots.has(s, i); i++ {
			var f *Frame
			for reader.read <= i && err == nil {
				f, err = reader.Next()
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: %s ends after %d frames, and did not when shots were looked for", ErrClip,
					r.Clip.Path, reader.read)
			}
			if err == nil {
				_, err = r.one(ctx, sequence, 1, Input{Index: i, Picture: f.Picture}, r.total())
			}
			if err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}
