package tiling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/seed9bb5c928/nst/torch"
)

// Part holds the tensors computed for one tile.
type Part interface {
	// EachTensor calls do for all of the part's tensors, of which some may be none, and
	// which do may replace.
	EachTensor(do func(*torch.Tensor))
}

// ahead is how many parts for each worker may wait for an earlier tile's.
const ahead = 4

// MapReduce has the pool's workers make a part of each of n tiles, on whichever is
// free, and reduce them, on the calling thread and in the order of the tiles, so that
// sums do not depend on who was fast. The tensors of a part are of tile's scope; reduce
// gets them on the pool's primary device, and has them for the call, except those that
// it takes out by leaving the zero value. A worker begins with the tiles of which it
// has kept the pass.
//
// A worker that fails is not used again, and its tile goes to another one; only the
// last one's failure is MapReduce's. Having no memory is a failure of the tiles' size,
// and MapReduce's at once, as is that the pool's context is done.
func MapReduce[P Part](p *Pool, n int, tile func(w *Worker, i int) P, reduce func(i int, part P)) error {
	q := &queue[P]{pool: p, tile: tile, todo: make([]bool, n), kept: make([]*Worker, n), made: map[int]P{}}
	q.changed = sync.NewCond(&q.mutex)
	for i := range q.todo {
		q.todo[i] = true
	}
	for _, w := range p.Workers {
		if w.lost {
			continue
		}
		q.working++
		for _, k := range w.kept {
			q.kept[k.tile] = w
		}
	}
	var others sync.WaitGroup
	for _, w := range p.Workers[1:] {
		if w.lost {
			continue
		}
		others.Go(func() {
			// A worker that cannot even begin is lost like one that fails.
			if err := w.Thread.Do(context.Background(), func() error { q.work(w, nil); return nil }); err != nil {
				q.mutex.Lock()
				q.lose(w, -1, err)
				q.mutex.Unlock()
			}
		})
	}
	finished := false
	defer func() {
		if !finished { // runtime.Goexit, as a failing test calls, in the caller's code
			q.mutex.Lock()
			q.fail(errors.New("the goroutine ended"))
			q.mutex.Unlock()
			others.Wait()
		}
		for _, part := range q.made { // of a run that failed
			closePart(part)
		}
	}()
	q.work(p.Workers[0], reduce)
	finished = true
	others.Wait()
	q.mutex.Lock()
	q.warn()
	q.mutex.Unlock()
	return q.err
}

func closePart(part Part) { part.EachTensor(func(t *torch.Tensor) { torch.Close(*t) }) }

// queue is the tiles of one MapReduce.
type queue[P Part] struct {
	pool     *Pool
	tile     func(w *Worker, i int) P
	mutex    sync.Mutex
	changed  *sync.Cond
	todo     []bool    // tiles that nobody has begun
	kept     []*Worker // who has kept the tile's pass since before
	made     map[int]P
	reduced  int      // tiles
	working  int      // workers
	warnings []string // for the first worker to deliver
	err      error
}

// work is a worker's loop. The first one, which has reduce, also reduces.
func (q *queue[P]) work(w *Worker, reduce func(i int, part P)) {
	if w.Threads > 0 && len(q.todo) > 1 { // one tile alone has all cores
		defer torch.SetThreads(torch.SetThreads(w.Threads))
	}
	q.mutex.Lock()
	defer q.mutex.Unlock()
	for q.err == nil && q.reduced < len(q.todo) {
		if reduce != nil && len(q.warnings) > 0 {
			q.warn()
			continue
		}
		if part, ok := q.made[q.reduced]; ok && reduce != nil {
			q.reduceNext(part, reduce)
			continue
		}
		i := -1
		if !w.lost {
			i = q.next(w)
		}
		if i < 0 {
			if reduce == nil && (w.lost || q.finished()) {
				return
			}
			q.changed.Wait()
			continue
		}
		var part P
		err := q.unlocked(func() (err error) { part, err = q.make(w, i); return err })
		if err != nil {
			q.lose(w, i, err)
			continue
		}
		q.made[i] = part
		q.changed.Broadcast()
	}
}

// unlocked runs the caller's code without the lock, which is held again however it ends.
func (q *queue[P]) unlocked(do func() error) error {
	q.mutex.Unlock()
	defer q.mutex.Lock()
	return torch.Recovered(do)
}

// reduceNext reduces the part of the next tile; the lock is held, except meanwhile.
func (q *queue[P]) reduceNext(part P, reduce func(i int, part P)) {
	i := q.reduced
	delete(q.made, i)
	err := q.unlocked(func() error {
		defer closePart(part)
		err := torch.Scoped(func() error {
			torch.NoGrad(func() { reduce(i, part) })
			return nil
		})
		if err == nil && q.pool.OnTile != nil {
			q.pool.OnTile(i+1, len(q.todo))
		}
		return err
	})
	if q.reduced++; err != nil {
		q.fail(err)
	}
	q.changed.Broadcast()
}

// make makes tile i's part, whose tensors are kept, on the primary device. It runs unlocked.
func (q *queue[P]) make(w *Worker, i int) (part P, err error) {
	if len(q.todo) > 1 { // one alone is soon done, and then there is a picture
		if err := q.pool.Context.Err(); err != nil {
			return part, err
		}
	}
	err = torch.Scoped(func() error {
		torch.NoGrad(func() { part = q.tile(w, i) })
		part.EachTensor(func(t *torch.Tensor) {
			if t.T != nil {
				*t = torch.To(*t, q.pool.Primary)
			}
		})
		part.EachTensor(func(t *torch.Tensor) { // when all are there
			if t.T != nil {
				torch.Keep(*t)
			}
		})
		return nil
	})
	return part, err
}

// next is the tile that a worker begins, or -1 if there is none for it now.
func (q *queue[P]) next(w *Worker) int {
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
		if i >= q.reduced+ahead*len(q.pool.Workers) {
			break
		}
		q.todo[i] = false
		return i
	}
	return -1
}

// finished says whether there is nothing left to do but to reduce.
func (q *queue[P]) finished() bool {
	return !slices.Contains(q.todo, true) && q.reduced+len(q.made) == len(q.todo)
}

// lose deals with a worker's failure at tile i (none: -1); the lock is held.
func (q *queue[P]) lose(w *Worker, i int, err error) {
	w.Drop(0)
	if q.working == 1 || q.isEveryones(w, err) {
		q.fail(err)
		return
	}
	w.lost = true
	q.working--
	if i >= 0 {
		q.todo[i] = true
	}
	q.warnings = append(q.warnings, fmt.Sprintf("%s failed and is not used any more (%v)", w.Device(), err))
	q.changed.Broadcast()
}

// warn delivers the warnings, on the first worker's thread; the lock is held, except
// meanwhile.
func (q *queue[P]) warn() {
	warnings := q.warnings
	q.warnings = nil
	err := q.unlocked(func() error {
		for _, w := range warnings {
			q.pool.Warn(w)
		}
		return nil
	})
	if err != nil {
		q.fail(err)
	}
}

// isEveryones says whether a worker's error would meet any other one too, as that the device is
// lost that the pictures are on.
func (q *queue[P]) isEveryones(w *Worker, err error) bool {
	var of *torch.Error
	if errors.As(err, &of) && of.Lost != "" {
		return of.Lost == q.pool.Primary || of.Lost != w.Device()
	}
	return errors.Is(err, torch.ErrOutOfMemory) || errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*torch.PanicError))
}

func (q *queue[P]) fail(err error) {
	if q.err == nil {
		q.err = err
	}
	q.changed.Broadcast()
}
