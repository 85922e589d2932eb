package nst

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// worker is a device with the network on it. All its work runs on its thread.
type worker struct {
	thread  *torch.Thread
	network *vgg19.Network
	threads int // of the processor, for a tile of several, as one of several workers on it; 0: all

	kept []kept
	lost bool // it failed, and is not used any more
}

// kept is the pass of a tile, to go back through later.
type kept struct {
	tile int
	pass *vgg19.Pass
}

func (w *worker) device() torch.Device { return w.thread.Device() }

// drop frees the passes that are kept, but for the first ones.
func (w *worker) drop(but int) {
	for len(w.kept) > but {
		w.kept[len(w.kept)-1].pass.Close()
		w.kept = w.kept[:len(w.kept)-1]
	}
}

// take gives away the pass that is kept of tile i, or nil.
func (w *worker) take(i int) *vgg19.Pass {
	for k, found := range w.kept {
		if found.tile == i {
			w.kept = slices.Delete(w.kept, k, k+1)
			return found.pass
		}
	}
	return nil
}

// farm shares the tiles of pictures out over workers. The first one's thread is
// the one that the farm is used on.
type farm struct {
	workers  []*worker
	channels map[string]float64 // n_C of the layers in use
	ctx      context.Context
	home     torch.Device // of the pictures and the sums: the first worker's, or the CPU
	fixed    bool         // the tiles' size may not change
	size     size         // of tiles
	passes   int          // that each worker may keep at once
	forget   bool         // content features are computed for each evaluation, not kept
	warn     func(string)
	told     func(done, all int) // after each tile
}

// fit calls do, and again with smaller tiles as long as it has not enough memory
// for the parts of a picture of width×height. It fails when tiles are as small as
// a position of the deepest layer.
func (f *farm) fit(width, height int, deepest vgg19.Layer, do func() error) error {
	for {
		err := do()
		now := longest(width, height)
		if f.size.side > 0 {
			now = min(now, f.size.side)
		}
		switch {
		case !errors.Is(err, torch.ErrOutOfMemory):
			return err
		case f.passes > 1:
			f.passes = 1
			f.warn("there is not enough memory: what was computed of a tile is not kept until it is needed again")
		case f.fixed || now < 2*deepest.Stride:
			return err
		default:
			f.size.side = max(deepest.Stride, now/2/deepest.Stride*deepest.Stride)
			f.warn(fmt.Sprintf("there is not enough memory: going on with tiles of %d pixels", f.size.side))
		}
		for _, w := range f.workers {
			if err := torch.EmptyCache(w.device()); err != nil {
				return err
			}
		}
	}
}

// ahead is how many results for each worker may wait for an earlier tile's.
const ahead = 4

// each has do make something of each of n tiles, on whichever worker is free, and
// take take it, on the calling thread and in the order of the tiles, so that sums
// do not depend on who was fast. What do returns is of its scope; take gets it on
// the farm's home, and has it for the call, unless it takes a tensor out
// by leaving the zero value. A worker begins with the tiles of which it has kept
// the pass.
//
// A worker that fails is not used again, and its tile goes to another one; only
// the last one's failure is each's. Having no memory is a failure of the tiles'
// size, and each's at once, as is that the context is done.
func (f *farm) each(n int, do func(w *worker, i int) []torch.Tensor, take func(i int, made []torch.Tensor)) error {
	q := &queue{farm: f, todo: make([]bool, n), kept: make([]*worker, n), made: map[int][]torch.Tensor{}, do: do}
	q.changed = sync.NewCond(&q.mutex)
	for i := range q.todo {
		q.todo[i] = true
	}
	for _, w := range f.workers {
		if w.lost {
			continue
		}
		q.working++
		for _, k := range w.kept {
			q.kept[k.tile] = w
		}
	}
	var others sync.WaitGroup
	for _, w := range f.workers[1:] {
		if w.lost {
			continue
		}
		others.Go(func() {
			// A worker that cannot even begin is lost like one that fails.
			if err := w.thread.Do(context.Background(), func() error { q.work(w, nil); return nil }); err != nil {
				q.lose(w, -1, err)
			}
		})
	}
	q.work(f.workers[0], take)
	others.Wait()
	for _, made := range q.made { // of a run that failed
		torch.Close(made...)
	}
	return q.err
}

// queue is the tiles of one call of each.
type queue struct {
	farm    *farm
	do      func(w *worker, i int) []torch.Tensor
	mutex   sync.Mutex
	changed *sync.Cond
	todo    []bool    // tiles that nobody has begun
	kept    []*worker // who has kept the tile's pass since before
	made    map[int][]torch.Tensor
	taken   int // tiles
	working int // workers
	err     error
}

// work is a worker's part. The first one also takes what was made.
func (q *queue) work(w *worker, take func(i int, made []torch.Tensor)) {
	if w.threads > 0 && len(q.todo) > 1 { // the only one gets all
		defer torch.SetThreads(torch.SetThreads(w.threads))
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for q.err == nil && q.taken < len(q.todo) {
		if made, ok := q.made[q.taken]; ok && take != nil {
			i := q.taken
			delete(q.made, i)
			q.mutex.Unlock()
			err := caught(func() error {
				err := torch.Scoped(func() error {
					torch.NoGrad(func() { take(i, made) })
					return nil
				})
				if err == nil && q.farm.told != nil {
					q.farm.told(i+1, len(q.todo))
				}
				return err
			})
			torch.Close(made...)
			q.mutex.Lock()
			if q.taken++; err != nil {
				q.fail(err)
			}
			q.changed.Broadcast()
			continue
		}
		i := -1
		if !w.lost {
			i = q.next(w)
		}
		if i < 0 {
			if take == nil && (w.lost || q.finished()) {
				return
			}
			q.changed.Wait()
			continue
		}
		q.mutex.Unlock()
		var made []torch.Tensor
		var err error
		if len(q.todo) > 1 { // one is soon done, and then there is a picture
			err = q.farm.ctx.Err()
		}
		if err == nil {
			err = caught(func() error {
				return torch.Scoped(func() error {
					torch.NoGrad(func() { made = q.do(w, i) })
					for k, t := range made {
						made[k] = torch.To(t, q.farm.home)
					}
					for _, t := range made {
						torch.Keep(t)
					}
					return nil
				})
			})
		}
		q.mutex.Lock()
		if err != nil {
			q.mutex.Unlock()
			q.lose(w, i, err)
			q.mutex.Lock()
			continue
		}
		q.made[i] = made
		q.changed.Broadcast()
	}
}

// next is the tile that a worker begins, or -1 if there is none for it now.
func (q *queue) next(w *worker) int {
	for i, owner := range q.kept {
		if owner == w && q.todo[i] {
			q.todo[i] = false
			return i
		}
	}
	for i, todo := range q.todo {
		if owner := q.kept[i]; !todo || owner != nil && !owner.lost {
			continue
		}
		if i >= q.taken+ahead*len(q.farm.workers) {
			break
		}
		q.todo[i] = false
		return i
	}
	return -1
}

// finished says whether nobody has anything to do but to take what was made.
func (q *queue) finished() bool {
	return !slices.Contains(q.todo, true) && q.taken+len(q.made) == len(q.todo)
}

// lose deals with a worker's failure at tile i (none: -1).
func (q *queue) lose(w *worker, i int, err error) {
	w.drop(0)
	q.mutex.Lock()
	if errors.Is(err, torch.ErrOutOfMemory) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*PanicError)) || q.working == 1 {
		q.fail(err)
		q.mutex.Unlock()
		return
	}
	w.lost = true
	q.working--
	if i >= 0 {
		q.todo[i] = true
	}
	q.changed.Broadcast()
	q.mutex.Unlock()
	if err := caught(func() error { // the caller's code: no lock is held
		q.farm.warn(fmt.Sprintf("%s failed and is not used any more (%v)", w.device(), err))
		return nil
	}); err != nil {
		q.mutex.Lock()
		q.fail(err)
		q.mutex.Unlock()
	}
}

// PanicError is the error of a run that panicked, or whose caller's function did.
type PanicError struct {
	Value any    // what was panicked with
	Stack string // where
}

// Error says what was panicked with.
func (p *PanicError) Error() string { return fmt.Sprintf("an error in the program: %v", p.Value) }

// caught is f's error, or its panic as one.
func caught(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p := &PanicError{Value: r, Stack: string(debug.Stack())}
			var thrown *torch.ThreadPanic
			if e, ok := r.(error); ok && errors.As(e, &thrown) { // on another thread
				p.Value, p.Stack = thrown.Value, string(thrown.Stack)
			}
			err = p
		}
	}()
	return f()
}

func (q *queue) fail(err error) {
	if q.err == nil {
		q.err = err
	}
	q.changed.Broadcast()
}
