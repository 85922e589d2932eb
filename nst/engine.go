// Package nst is neural style transfer: it changes a picture until a
// convolutional network sees in it what it sees in a content picture, with the
// textures that it sees in style pictures (Gatys, Ecker and Bethge,
// arXiv:1508.06576).
//
// An Engine holds a device and a network; Stylize is one transfer. The costs
// are in cost.go, the objective and its gradient in evaluator.go, the loop of
// one scale in optimise.go, the scales in schedule.go and transfer.go.
package nst

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Engine is a device with a feature network on it. It is safe for concurrent
// use; transfers of one engine run one after the other. It remembers the style
// targets of the last pictures. The owner closes it.
type Engine struct {
	workers   []*worker // the first one's device holds the pictures
	styles    *styleCache
	networkID func() (string, error)
}

// OpenOption changes how an engine works.
type OpenOption string

// GiveWay has the engine compute with what processor time others leave, as in a
// process that has something to answer too.
const GiveWay OpenOption = "give way"

// Open readies devices and loads a feature network (see vgg19.Load) onto each:
// "auto", "cpu", "cuda", "cuda:N" (see torch.ParseDevice), or several with commas
// between, which share a picture's tiles. "cpu:N" is N workers on the CPU, each
// with its share of the cores while there are tiles to share; a picture that is
// evaluated whole has them all.
func Open(ctx context.Context, model, device string, options ...OpenOption) (e *Engine, err error) {
	e = &Engine{styles: newStyleCache()}
	e.networkID = sync.OnceValues(func() (string, error) { return vgg19.FileHash(model) })
	defer func() {
		if err != nil {
			e.Close()
			e = nil
		}
	}()
	for _, name := range strings.Split(device, ",") {
		count, threads := 1, 0
		if n, ok := strings.CutPrefix(name, "cpu:"); ok {
			count, err = strconv.Atoi(n)
			if most := torch.Threads(); err != nil || count < 1 || count > most {
				return e, fmt.Errorf("%w: %q: 1 to %d workers can share this CPU", torch.ErrDevice, name, most)
			}
			name, threads = "cpu", max(1, torch.Threads()/count)
		}
		d, err := torch.ParseDevice(name)
		if err != nil {
			return e, err
		}
		if d != torch.CPU && slices.ContainsFunc(e.workers, func(w *worker) bool { return w.device() == d }) {
			return e, fmt.Errorf("%w: %s is named twice", torch.ErrDevice, d)
		}
		for range count {
			w := &worker{thread: torch.StartThread(d), threads: threads}
			e.workers = append(e.workers, w)
			if slices.Contains(options, GiveWay) {
				if err := w.thread.GiveWay(); err != nil {
					return e, err
				}
			}
		}
	}
	for i, w := range e.workers {
		if i > 0 && w.device() == e.workers[i-1].device() { // they can share it on the CPU
			w.network = e.workers[i-1].network
			continue
		}
		err := w.thread.Do(ctx, func() (err error) {
			w.network, err = vgg19.Load(model, w.device())
			return err
		})
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

// thread is the first device's, on which all runs that is not of a tile.
func (e *Engine) thread() *torch.Thread { return e.workers[0].thread }

// Device is where the engine works: the first of several devices.
func (e *Engine) Device() torch.Device { return e.thread().Device() }

// Devices are all of them.
func (e *Engine) Devices() (all []torch.Device) {
	for _, w := range e.workers {
		all = append(all, w.device())
	}
	return all
}

// Close frees the network and ends the devices' threads. No transfer may be
// running.
func (e *Engine) Close() {
	for i, w := range e.workers {
		_ = w.thread.Do(context.Background(), func() error {
			if i == 0 {
				e.styles.close()
			}
			if w.network != nil {
				w.network.Close()
			}
			return nil
		})
		w.thread.Close()
	}
}

// Describe returns what the network's file says of itself.
func (e *Engine) Describe(ctx context.Context) (d *vgg19.Description, err error) {
	err = e.thread().Do(ctx, func() error {
		d, err = e.workers[0].network.Describe(e.Device())
		return err
	})
	return d, err
}

// Threads is the number of threads with which the engine computes on the CPU.
func (e *Engine) Threads() (n int) {
	_ = e.thread().Do(context.Background(), func() error { n = torch.Threads(); return nil })
	return n
}

// Result is what Stylize made.
type Result struct {
	// Picture is the best picture of the result's size: of all that were
	// evaluated there, and the average of Adam's iterates, the one with the
	// lowest total. A run that ended at a smaller scale has that scale's best,
	// enlarged.
	Picture *picture.Picture
	// Costs are the picture's, before its colours were changed (see Color) or
	// it was enlarged.
	Costs Costs
	// Iterations is the number of steps taken, Seconds how long they took, both
	// with those of the run that was resumed.
	Iterations int
	Seconds    float64
	// PeakMemory is the most memory in use, in bytes: of the device's tensors,
	// or on the CPU of the whole process.
	PeakMemory int64
	Precision  Precision
	// Tiles is in how many parts the picture was evaluated.
	Tiles int
	// Replayed is how many of the iterations were sent to the device at once, as a
	// graph recorded before (on CUDA, a CUDA graph). The CPU has none.
	Replayed int
	// AutotuneSeconds is how long CUDA's libraries tried algorithms, with the
	// evaluations that they tried them on: see Options.Autotune.
	AutotuneSeconds float64
}

// Progress is what Stylize reports before each step, and once at the end.
type Progress struct {
	// Scale is the longest side of the picture being optimised.
	Scale int `json:"scale"`
	// Iteration counts the steps done, in all scales; Iterations is how many
	// there will be.
	Iteration  int `json:"iteration"`
	Iterations int `json:"-"`
	// Fraction is how much of the work is done, 0 to 1: an iteration's is as
	// its scale's pixels.
	Fraction float64 `json:"-"`
	// Costs are the picture's, before the step; at the end the result's.
	Costs
	// Seconds is the time since the optimisation began.
	Seconds float64 `json:"seconds"`
	// Last says that this is the end: nothing is left to do, or ctx is done.
	Last bool `json:"-"`
	// Picture returns a copy of the picture, of its scale's size. Like
	// Checkpoint, it may be called only until the callback returns, and is nil
	// at the iterations that Options.StateEvery, or a GPU, leaves out.
	Picture func() *picture.Picture `json:"-"`
	// Checkpoint returns a copy of the state, which Options.Resume goes on from.
	Checkpoint func() (*Checkpoint, error) `json:"-"`
}

// Stylize gives the content picture the style of the style pictures (of which
// the Gram matrices are averaged, by Options.StyleWeights). report, which may
// be nil, is called on the device's thread before each step and at the end; it
// must not call the engine.
//
// When ctx is done, Stylize returns the best picture so far and ctx's error,
// both; the picture is nil only if nothing had been evaluated. Errors about o
// match ErrInvalidOption, about pictures picture.ErrPicture, about the network
// vgg19.ErrNetwork, about memory torch.ErrOutOfMemory, about a checkpoint
// ErrCheckpoint, and of costs that stopped being numbers ErrDiverged, with the
// best picture before.
func (e *Engine) Stylize(ctx context.Context, content *picture.Picture, styles []*picture.Picture, o Options, report func(Progress)) (*Result, error) {
	results, err := e.StylizeTogether(ctx, []Pair{{content, styles, report}}, o)
	if len(results) == 0 {
		return nil, err
	}
	return results[0], err
}

// Pair is one of several pictures that are made together.
type Pair struct {
	Content *picture.Picture
	Styles  []*picture.Picture
	// Report may be nil; see Stylize.
	Report func(Progress)
}

// StylizeTogether is Stylize for several pairs of one size at once, each by
// itself: the results are those that Stylize makes of each, but for rounding. A
// GPU is not filled by one small picture. Masks and Resume are for one pair
// alone; a checkpoint cannot be made of several. An error is that of all.
func (e *Engine) StylizeTogether(ctx context.Context, pairs []Pair, o Options) ([]*Result, error) {
	var all []*transfer
	for _, p := range pairs {
		if p.Report == nil {
			p.Report = func(Progress) {}
		}
		t, err := e.newTransfer(p.Content, p.Styles, o, p.Report)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, nil
	}
	t := all[0]
	if err := t.join(all[1:]); err != nil {
		return nil, err
	}
	var results []*Result
	err := t.do(ctx, func() (err error) {
		results, err = t.run(ctx)
		return err
	})
	if err == nil && results[0].Iterations < t.settings.iterations {
		err = ctx.Err()
	}
	return results, err
}
