package nst

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// run makes the pictures of some items, all of one size, at once: from scale to scale.
type run struct {
	engine   *Engine
	settings *settings
	hooks    Hooks
	items    []*item // at least one
	schedule []scale
	pool     *tiling.Pool
	spec     objective.Spec // with the network's channels
	settled  plan
	now      *descent.Descent // of the scale that was evaluated last; nil before
	refuge   refuge
	eval     *objective.Evaluator // of the scale that is optimised; nil between scales

	began      time.Time
	earlier    float64 // seconds of the run that was resumed
	tiles      int     // of the last scale
	replayed   int     // iterations, from a graph
	autotuning float64 // seconds until the first evaluation of scales that were tuned
	unrecorded bool    // it was said why there is no graph
	complete   bool    // all was done
}

// newRun finds out all that it can before the work begins.
func (e *Engine) newRun(inputs []Input, o Options, h Hooks) (*run, error) {
	s, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	for _, device := range e.Devices() {
		if device == torch.CPU && e.Device() != torch.CPU {
			continue // it helps a GPU, in what precision it has
		}
		if err := s.Precision.CheckDevice(device); err != nil {
			return nil, err
		}
	}
	if h.StateEvery < 0 || h.ReadEvery < 0 {
		return nil, fmt.Errorf("%w: Hooks.StateEvery is %d, ReadEvery %d; 0 or more will do", ErrInvalidOption,
			h.StateEvery, h.ReadEvery)
	}
	r := &run{engine: e, settings: s, hooks: h}
	for i, in := range inputs {
		m, err := newItem(s, in)
		if err != nil {
			return nil, err
		}
		r.items = append(r.items, m)
		schedule, err := s.schedule(in.Content, in.Styles)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			r.schedule = schedule
		} else if !slices.Equal(schedule, r.schedule) {
			last, other := r.final(), schedule[len(schedule)-1]
			return nil, invalid("Size", "makes pictures of %d×%d and %d×%d; those that are made together are of "+
				"one size", last.width, last.height, other.width, other.height)
		}
		if len(inputs) > 1 && (m.contentMask != nil || s.Resume != nil || s.Previous != nil) {
			return nil, invalid("ContentMask", "is for one picture at a time, as StrengthMask, transparent pixels "+
				"that are kept, Previous and Resume")
		}
	}
	if s.Resume != nil {
		if err := r.checkResume(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// final is the result's scale.
func (r *run) final() scale { return r.schedule[len(r.schedule)-1] }

// do has work done on the first device's thread, in a scope, with everything ready.
func (r *run) do(ctx context.Context, work func() error) error {
	if r.engine.thread().Current() {
		return errors.New("the engine is called by a hook of a run of its own: call it when the run has ended")
	}
	return r.engine.thread().Do(ctx, func() error {
		defer r.unlimit()                     // see free
		return torch.Recovered(func() error { // a panic of the caller's functions, or ours, is this run's
			if err := r.prepare(ctx); err != nil {
				return err
			}
			return work()
		})
	})
}

// prepare readies the devices, the network and the plan.
func (r *run) prepare(ctx context.Context) error {
	s, e := r.settings, r.engine
	r.pool = &tiling.Pool{Workers: e.workers, Context: ctx, Fixed: s.Tile == TileOff, Warn: r.hooks.Warn,
		OnTile: r.hooks.Tile}
	if r.pool.Warn == nil {
		r.pool.Warn = func(string) {}
	}
	r.spec = s.spec
	err := e.onAll(ctx, func(w *tiling.Worker) error {
		w.Revive()
		w.Network.SetFast(s.Precision == Fast)
		w.Network.SetFused(!s.repeats())
		if err := errors.Join(torch.ResetPeak(w.Device()), w.Network.SetPooling(s.pooling()),
			w.Network.SetPadding(s.Padding)); err != nil {
			return err
		}
		return torch.Retry(w.Device(), func() (err error) {
			if err := w.Network.Cast(s.Precision.network()); err != nil {
				return err
			}
			torch.SetMath(s.math(false)) // after Cast, which chooses its own to compare by
			r.spec.Channels, err = w.Network.Require(w.Device(), s.layers())
			return err
		})
	})
	if err != nil {
		return err
	}
	if mask := r.items[0].contentMask; mask != nil {
		r.spec.Regions = len(mask.shares)
	}
	styles := 0
	for _, m := range r.items {
		styles += len(m.styles)
	}
	e.styles.reserve(styles) // all of a scale are used at once
	return r.makePlan()
}

// situation is what the plan is made by.
func (r *run) situation() (situation, error) {
	free := map[torch.Device]int64{}
	for _, device := range append(r.engine.Devices(), torch.CPU) {
		if _, known := free[device]; known {
			continue
		}
		bytes, err := r.free(device)
		if err != nil {
			return situation{}, err
		}
		free[device] = bytes
	}
	return situation{
		workers: r.engine.workers, free: free, limited: r.settings.MemoryLimit > 0, tile: r.settings.Tile,
		schedule: r.schedule, pictures: int64(len(r.items)), double: r.settings.Precision == Double,
		spec: &r.spec, descent: r.settings.descent, still: r.settings.iterations == 0, styles: r.styleSizes(),
	}, nil
}

// makePlan settles how the memory is used, and has it so.
func (r *run) makePlan() error {
	s, err := r.situation()
	if err != nil {
		return err
	}
	p := s.plan()
	if p.warning != "" {
		r.pool.Warn(p.warning)
	}
	r.settled = p
	r.pool.Primary, r.pool.Size, r.pool.Recompute, r.pool.Passes = p.primary, p.size, p.recompute, p.passes
	for _, w := range r.engine.workers {
		w.Network.SetKeep(p.keep)
	}
	return nil
}

// styleSizes are those of all styles in the result's size.
func (r *run) styleSizes() (out []objective.Dimensions) {
	for _, m := range r.items {
		for _, one := range m.styles {
			width, height := r.settings.styleSize(one.shape, r.final().factor)
			out = append(out, objective.Dimensions{Width: width, Height: height})
		}
	}
	return out
}

// free is how much of a device's memory this process may still use.
func (r *run) free(device torch.Device) (int64, error) {
	if err := torch.EmptyCache(device); err != nil {
		return 0, err
	}
	m, err := torch.MemoryOf(device)
	if err != nil {
		return 0, err
	}
	limit := int64(r.settings.MemoryLimit)
	if device != torch.CPU {
		free := m.Free
		if limit > 0 { // what is freed is kept for other tensors, and counts
			most := max(1<<20, limit-librariesReserve)
			free = min(free, most-m.Allocated)
			if err := torch.LimitMemory(device, most); err != nil {
				return 0, err
			}
		}
		return free * 100 / (100 + blocksPercent), nil
	}
	if limit == 0 || !slices.Contains(r.engine.Devices(), torch.CPU) {
		return m.Free * 8 / 10, nil
	}
	r.settings.collect() // what decoding has left
	if m, err = torch.MemoryOf(device); err != nil {
		return 0, err
	}
	// Beside tensors there will be the result and pictures at their sizes.
	tensors, _ := torch.HostTensors()
	pictures := int64(len(r.items)) * r.final().bytes(r.settings.Precision == Double)
	others := m.Allocated - tensors + pictures + r.resized() + hostReserve
	r.limitTensors(max(1<<20, limit-others))
	return limit - others - tensors, nil
}

// blocksPercent is how many per cent more than they are a GPU's tensors take, since they lie in blocks
// of memory, and a recording's in others than those before it: measured over the pretend CUDA, by
// limits in small steps.
const blocksPercent = 15

// librariesReserve is what CUDA's libraries take of a device beside tensors, as far as it is known:
// handles, kernels that are loaded, graphs. (Of its context it is not: see nst/README.md.)
const librariesReserve = 64 << 20

// hostReserve is what the host needs beside tensors and pictures: libraries that
// are not loaded yet, the kernels' own memory, and small tensors.
const hostReserve = 160 << 20

// resized is what the pictures take that are used at another size than their own:
// the contents at a time, and the largest of the styles, which come before.
func (r *run) resized() int64 {
	at := r.final()
	bytes := func(p *picture.Picture, width, height int) int64 {
		if width == p.Width && height == p.Height {
			return 0
		}
		return 12 * int64(width) * int64(height)
	}
	var contents, style int64
	for _, m := range r.items {
		contents += bytes(m.content, at.width, at.height)
		for _, one := range m.styles {
			width, height := r.settings.styleSize(one.shape, at.factor)
			style = max(style, bytes(one.picture, width, height))
		}
	}
	return max(contents, style)
}

// unlimit takes back what free has limited.
func (r *run) unlimit() {
	r.limitTensors(0)
	if r.settings.MemoryLimit > 0 {
		for _, device := range r.engine.Devices() {
			_ = torch.LimitMemory(device, 0)
		}
	}
}

// limitTensors is torch.LimitHostTensors on all of the engine's threads, of which this
// is the first.
func (r *run) limitTensors(bytes int64) {
	_ = r.engine.onAll(context.Background(), func(*tiling.Worker) error { torch.LimitHostTensors(bytes); return nil })
}

// collect has what is no longer used given back, if there is a limit to keep to.
func (s *settings) collect() {
	if s.MemoryLimit > 0 {
		debug.FreeOSMemory()
	}
}

// optimise is work for do. Its results are the items'.
func (r *run) optimise(ctx context.Context) ([]*Result, error) {
	defer func() {
		if r.now != nil {
			r.now.Close()
		}
	}()
	first := 0
	if r.settings.Resume != nil {
		first = r.settings.Resume.state.Scale
	}
	var stopped error
	var best []objective.Costs
	for i, last := first, false; !last; i++ {
		ended, costs, err := r.optimiseScale(ctx, i)
		if last = ended; len(costs) > 0 {
			best = costs
		}
		switch {
		case err == nil:
		case errors.Is(err, torch.ErrDeviceLost):
			return r.refuge.results(r), err
		case errors.Is(err, ErrDiverged) && best != nil:
			stopped, last = err, true
		case best != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()): // before the scale had a picture
			r.tell(i-1, r.now.Steps(), best, true, true)
			last = true
		default:
			return nil, err
		}
	}
	device := r.engine.Device()
	memory, err := torch.MemoryOf(device)
	var results []*Result
	if err == nil {
		err = torch.Retry(device, func() error {
			results = nil
			for k, m := range r.items {
				result := r.resultOf(best[k], r.now.Steps())
				result.Picture, result.PeakMemory = m.result(r.now, k, r.final()), memory.Peak
				results = append(results, result)
			}
			return nil
		})
	}
	switch {
	case errors.Is(err, torch.ErrDeviceLost):
		return r.refuge.results(r), err
	case err != nil:
		return nil, err
	}
	return results, stopped
}

// resultOf is a result, without its picture.
func (r *run) resultOf(costs objective.Costs, iterations int) *Result {
	return &Result{Costs: costsOf(costs), Iterations: iterations, Seconds: r.seconds(), Precision: r.settings.Precision,
		Tiles: r.tiles, Replayed: r.replayed, AutotuneSeconds: r.autotuning}
}

// optimiseScale optimises at scale i, from the descent of the scale before, which its own
// replaces once it is evaluated. It returns the costs of the best pictures, and whether the run ends here.
func (r *run) optimiseScale(ctx context.Context, i int) (last bool, best []objective.Costs, err error) {
	at, s := r.schedule[i], r.settings
	begin, tune := time.Now(), s.autotunes(at, len(r.items))
	if err := r.setMath(ctx, tune); err != nil {
		return false, nil, err
	}
	eval, err := r.evaluator(at)
	if err != nil {
		return false, nil, err
	}
	r.eval = eval
	defer func() { // the next scale's maps have other sizes
		r.eval = nil
		r.tiles = eval.Tiles()
		if r.now != nil {
			r.now.Release() // what uses the evaluator's tensors
		}
		eval.Close()
		if err == nil {
			err = torch.EmptyCache(r.engine.Device())
		}
	}()
	if r.began.IsZero() {
		r.began = time.Now()
	}
	settings := r.descentSettings()
	var next *descent.Descent
	err = torch.Retry(r.engine.Device(), func() (err error) {
		switch {
		case r.now != nil:
			next = r.now.Upsample(eval, settings, int64(at.height), int64(at.width), at.iterations,
				r.detail(r.schedule[i-1], at))
		case s.Resume != nil:
			next, err = r.restore(eval, settings, at)
		default:
			next = descent.New(eval, settings, r.start(at), at.iterations, 0)
		}
		return err
	})
	if err != nil {
		return false, nil, err
	}
	// Until it is evaluated, the picture to be had is that of the scale before.
	defer func() {
		if r.now != next { // however it ends
			next.Close()
		}
	}()
	replace := func() {
		if r.now != nil && r.now != next {
			r.now.Close()
		}
		r.now = next
	}
	next.OnFirst(func() {
		replace()
		if tune && r.engine.Device() != torch.CPU {
			r.autotuning += time.Since(begin).Seconds()
		}
	})
	isFinal := i == len(r.schedule)-1
	err = next.Run(ctx, !isFinal, func(reading descent.Reading) error {
		all := eval.Costs(reading.Values)
		for _, c := range all {
			if err := c.Check(reading.Steps); err != nil {
				return err
			}
		}
		if reading.Last {
			return nil
		}
		r.tell(i, reading.Steps, all, reading.Current, false)
		if !reading.Current {
			return nil
		}
		return r.refuge.keep(r.engine, next, eval)
	})
	if err == nil {
		replace() // also of a scale that had nothing left to do
	}
	if r.now != next {
		return false, nil, err
	}
	r.complete = isFinal && next.Complete()
	r.replayed += next.Replayed()
	if errors.Is(err, torch.ErrDeviceLost) {
		return false, nil, err
	}
	read := torch.Retry(r.engine.Device(), func() error { best = eval.Costs(next.BestValues()); return nil })
	if err = errors.Join(err, read); err != nil {
		return false, best, err
	}
	if last = isFinal || ctx.Err() != nil; last {
		r.tell(i, next.Steps(), best, true, true)
	}
	return last, best, nil
}

// descentSettings are the settings' with what the plan has of memory.
func (r *run) descentSettings() descent.Settings {
	s := r.settings.descent
	s.Memory, s.StateEvery, s.ReadEvery = r.settled.memory, r.hooks.StateEvery, r.hooks.ReadEvery
	// A start from the content has no noise, and its details come from the content.
	noise := r.settings.Start == StartNoise || r.settings.Start == StartFaint || r.settings.Start == StartGray
	s.Smooth = noise
	s.OnUnrecorded = func(why error) {
		if !r.unrecorded { // once is enough
			r.unrecorded = true
			r.pool.Warn(fmt.Sprintf("iterations are sent piece by piece: %s cannot record them as a graph (%v)",
				r.engine.Device(), why))
		}
	}
	return s
}

// tell reports the costs of scale i after so many steps, which are those of the
// descent's pictures if that is current.
func (r *run) tell(i, steps int, costs []objective.Costs, current, last bool) {
	if r.hooks.Progress == nil {
		return
	}
	now := r.now
	var done, all float64
	for k, at := range r.schedule {
		work := float64(at.width * at.height)
		all += work * float64(at.iterations)
		if k < i {
			done += work * float64(at.iterations)
		} else if k == i {
			done += work * float64(steps-(now.Steps()-now.Done()))
		}
	}
	for k, m := range r.items {
		p := Progress{
			Input: k, Scale: longest(r.schedule[i].width, r.schedule[i].height),
			Iteration: steps, Iterations: r.settings.iterations,
			Costs: costsOf(costs[k]), Seconds: r.seconds(), Last: last,
		}
		if last || current && steps%max(1, r.hooks.StateEvery) == 0 {
			p.State = &State{
				thread: r.engine.thread(),
				picture: func() *picture.Picture {
					if last {
						return m.result(now, k, r.final())
					}
					return m.finish(pictureOf(objective.OnePicture(now.Pictures(), k)))
				},
				checkpoint: func() (*Checkpoint, error) { return r.checkpoint(i, now) },
			}
		}
		if p.Fraction = 1; all > 0 {
			p.Fraction = done / all
		}
		r.hand(p)
	}
}

// hand has the hook called, and ends its state.
func (r *run) hand(p Progress) {
	if p.State != nil {
		defer p.State.end()
	}
	r.hooks.Progress(p)
}

func (r *run) seconds() float64 { return r.earlier + time.Since(r.began).Seconds() }

// repeats says whether a precision asks for the same bits from every run, and with
// that for what may be slower.
func (s *settings) repeats() bool { return s.Precision == Exact || s.Precision == Double }

// math is how CUDA computes.
func (s *settings) math(autotune bool) torch.Math {
	return torch.Math{TF32: s.Precision == Fast || s.Precision == TF32, Autotune: autotune, Deterministic: s.repeats()}
}

// setMath has every device compute as the settings say.
func (r *run) setMath(ctx context.Context, autotune bool) error {
	return r.engine.onAll(ctx, func(*tiling.Worker) error { torch.SetMath(r.settings.math(autotune)); return nil })
}

// evaluator makes the evaluator of a scale.
func (r *run) evaluator(at scale) (eval *objective.Evaluator, err error) {
	spec := r.spec
	spec.Alpha = r.settings.alphaAt(at)
	if _, ok := spec.StyleLoss.(objective.Sliced); ok { // other directions for each scale
		spec.StyleLoss = objective.Sliced{Seed: r.settings.Seed, Scale: uint64(at.width)<<16 + uint64(at.height)}
	}
	err = torch.Retry(r.engine.Device(), func() error {
		var styled []styledItem
		var sized []*picture.Picture
		defer func() {
			for _, i := range styled {
				for _, c := range i.candidates {
					c.Close()
				}
			}
		}()
		for _, m := range r.items {
			i, err := styledItem{item: m}, error(nil)
			if spec.Neighbours {
				i.candidates, err = m.candidates(r.pool, &spec, at)
			} else {
				i.targets, err = m.targets(r.engine.styles, r.pool, &spec, at)
			}
			styled = append(styled, i)
			if err != nil {
				return err
			}
			sized = append(sized, resized(m.content, at.width, at.height, r.settings.Wrap.Directions()))
		}
		made, err := styles(styled, &spec, r.pool.Primary, at)
		if err != nil {
			return err
		}
		var opacity objective.Opacity
		if content := r.items[0].content; content.Alpha != nil {
			opacity = objective.NewOpacity(alphaOf(content, at.width, at.height, spec.Wrap), spec.ContentLayers(),
				r.pool.Primary, r.settings.Precision.scalar())
		}
		eval, err = objective.New(r.pool, &spec, at.width, at.height, made, func(t tiling.Tile) torch.Tensor {
			var parts []torch.Tensor
			for _, p := range sized {
				parts = append(parts, r.settings.part(p, t))
			}
			return objective.StackPictures(parts)
		}, opacity, r.temporal(at))
		return err
	})
	return eval, err
}

// stack makes a tensor [1,…] of each item's one [N,…].
func (r *run) stack(make func(m *item) torch.Tensor) torch.Tensor {
	var parts []torch.Tensor
	for _, m := range r.items {
		parts = append(parts, make(m))
	}
	return objective.StackPictures(parts)
}

// temporal is what the picture is held to at a scale; nil: nothing.
func (r *run) temporal(at scale) *objective.Temporal {
	p := r.settings.Previous
	if p == nil || r.spec.Delta == 0 {
		return nil
	}
	roots := make([]float32, len(p.Weights))
	for i, w := range p.Weights {
		roots[i] = float32(math.Sqrt(float64(min(max(w, 0), 1))))
	}
	roots = resizedPlanes(roots, p.Picture, at.width, at.height, r.settings.Wrap.Directions())
	plane := torch.FromFloats(roots, r.pool.Primary, 1, 1, int64(at.height), int64(at.width))
	return &objective.Temporal{
		Target: r.settings.tensor(p.Picture, r.pool.Primary, at.width, at.height),
		Roots:  torch.Cast(plane, r.settings.Precision.scalar()),
	}
}

// start is the pictures to start from at a scale.
func (r *run) start(at scale) torch.Tensor {
	return torch.Local(func() torch.Tensor {
		return r.stack(func(m *item) torch.Tensor {
			return r.settings.tensor(m.start(at), r.pool.Primary, at.width, at.height)
		})
	})
}

// detail is what the content pictures have at a scale and not at the one before.
// A run that starts from the content keeps it so: not the picture but its change
// is what grows from scale to scale, and no detail has to be found again. Other
// starts have none.
func (r *run) detail(before, at scale) torch.Tensor {
	if r.settings.Start != StartContent {
		return torch.Tensor{}
	}
	return torch.Local(func() torch.Tensor {
		sized := func(at scale) torch.Tensor {
			return r.stack(func(m *item) torch.Tensor {
				return r.settings.tensor(m.content, r.pool.Primary, at.width, at.height)
			})
		}
		coarse, fine := sized(before), sized(at)
		return torch.Sub(fine, torch.Resize(coarse, int64(at.height), int64(at.width), r.settings.Wrap.Directions()))
	})
}
