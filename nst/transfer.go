package nst

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// transfer is one picture's way: its inputs, settings and schedule. The first of
// several that are made at once runs them all.
type transfer struct {
	engine      *Engine
	content     *picture.Picture
	styles      []*picture.Picture
	styleIDs    []fingerprint
	contentMask *mask   // nil without masks
	styleMasks  []*mask // as many as styles
	settings    *settings
	schedule    []scale
	report      func(Progress)
	members     []*transfer // made at once, this being the first; at least itself
	farm        *farm
	memory      lbfgsMemory
	tiles       int     // of the last scale
	replayed    int     // iterations, from a graph
	autotuning  float64 // seconds until the first evaluation of scales that were tuned
	unrecorded  bool    // it was said why there is no graph

	began   time.Time
	earlier float64          // seconds of the run that was resumed
	colours *picture.Picture // the content at the result's size, for ColorContent

	targets      []styleTargets // of a scale, which the engine's cache owns
	targetShares []float64
}

// newTransfer finds out all that it can before the work begins.
func (e *Engine) newTransfer(content *picture.Picture, styles []*picture.Picture, o Options, report func(Progress)) (*transfer, error) {
	s, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if s.Precision == TF32 && e.Device() == torch.CPU {
		return nil, invalid("Precision", "tf32 is CUDA's, and the device is the CPU; fast or bf16 will do")
	}
	if len(styles) == 0 {
		return nil, fmt.Errorf("%w: there is no style picture", picture.ErrPicture)
	}
	if err := content.Check(); err != nil {
		return nil, fmt.Errorf("the content picture: %w", err)
	}
	for i, p := range styles {
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("the %s: %w", styleName(i, len(styles)), err)
		}
	}
	if content, styles, err = s.withAlpha(content, styles); err != nil {
		return nil, err
	}
	t := &transfer{engine: e, content: content, styles: styles, settings: s, report: report}
	t.members = []*transfer{t}
	if err := s.checkTogether(content, styles); err != nil {
		return nil, err
	}
	if t.contentMask, t.styleMasks, err = s.checkMasks(content, styles); err != nil {
		return nil, err
	}
	if t.schedule, err = s.schedule(content, styles); err != nil {
		return nil, err
	}
	if s.Color == ColorMatch {
		t.styles = nil
		for _, p := range styles {
			t.styles = append(t.styles, picture.MatchColors(p, content))
		}
	}
	for _, p := range t.styles {
		t.styleIDs = append(t.styleIDs, fingerprintOf(p))
	}
	if s.Resume != nil {
		if err := t.checkResume(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// join has other transfers of the same settings made together with t.
func (t *transfer) join(others []*transfer) error {
	for _, o := range others {
		if t.contentMask != nil || o.contentMask != nil || t.settings.Resume != nil {
			return invalid("ContentMask", "transparent pixels that are kept, and Resume are for one picture at a time")
		}
		if !slices.Equal(t.schedule, o.schedule) {
			last, other := t.schedule[len(t.schedule)-1], o.schedule[len(o.schedule)-1]
			return invalid("Size", "makes pictures of %d×%d and %d×%d; those that are made together are of one size", last.width, last.height, other.width, other.height)
		}
	}
	t.members = append(t.members, others...)
	return nil
}

// do has work done on the first device's thread, in a scope, with everything ready.
func (t *transfer) do(ctx context.Context, work func() error) error {
	return t.engine.thread().Do(ctx, func() error {
		defer t.limitTensors(0)      // see plan
		return caught(func() error { // a panic of the caller's functions, or ours, is this run's
			if err := t.prepare(ctx); err != nil {
				return err
			}
			return work()
		})
	})
}

// prepare readies the devices and the network, on the first device's thread.
func (t *transfer) prepare(ctx context.Context) error {
	s, e := t.settings, t.engine
	t.farm = &farm{workers: e.workers, channels: map[string]float64{}, ctx: ctx, told: s.OnTile, warn: s.Warn}
	if t.farm.warn == nil {
		t.farm.warn = func(string) {}
	}
	for _, m := range t.members {
		m.farm = t.farm
	}
	for _, w := range e.workers {
		w.lost = false
		err := w.thread.Do(ctx, func() error {
			w.network.SetFast(s.Precision == Fast)
			w.network.SetFused(!s.repeats())
			if err := errors.Join(torch.ResetPeak(w.device()), w.network.SetPooling(s.pooling()), w.network.SetPadding(s.Padding)); err != nil {
				return err
			}
			if err := w.network.Cast(s.Precision.network()); err != nil {
				return err
			}
			torch.SetMath(s.math(false)) // after Cast, which chooses its own to compare by
			channels, err := w.network.Require(w.device(), s.layers())
			for i, c := range channels {
				t.farm.channels[s.layers()[i]] = float64(c)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return t.plan()
}

// repeats says whether a precision asks for the same bits from every run, and with
// that for what may be slower.
func (s *settings) repeats() bool { return s.Precision == Exact || s.Precision == Double }

// math is how CUDA computes.
func (s *settings) math(autotune bool) torch.Math {
	return torch.Math{TF32: s.Precision == Fast || s.Precision == TF32, Autotune: autotune, Deterministic: s.repeats()}
}

// setMath has every device compute as the settings say.
func (t *transfer) setMath(ctx context.Context, autotune bool) error {
	for _, w := range t.engine.workers {
		if err := w.thread.Do(ctx, func() error { torch.SetMath(t.settings.math(autotune)); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// run is work for do. Its results are the members'.
func (t *transfer) run(ctx context.Context) ([]*Result, error) {
	s, device := t.settings, t.engine.Device()
	var now *state
	defer func() {
		if now != nil {
			now.close()
		}
	}()
	first := 0
	if s.Resume != nil {
		first = s.Resume.state.Scale
	}
	var stopped error
	for i, last := first, false; !last; i++ {
		var err error
		if last, err = t.scale(ctx, i, &now); errors.Is(err, ErrDiverged) {
			stopped, last = err, true
		} else if err != nil {
			return nil, err
		}
	}
	torch.Synchronize(device)
	memory, err := torch.MemoryOf(device)
	var results []*Result
	costs := now.bestCosts()
	for k, m := range t.members {
		results = append(results, &Result{
			Picture: m.result(now, k), Costs: costs[k], Iterations: now.before + now.steps,
			Seconds: t.seconds(), Precision: s.Precision, Tiles: t.tiles, PeakMemory: memory.Peak,
			Replayed: t.replayed, AutotuneSeconds: t.autotuning,
		})
	}
	return results, errors.Join(stopped, err)
}

// scale optimises at scale i, from the state of the scale before, which it
// replaces. It says whether the run ends here.
func (t *transfer) scale(ctx context.Context, i int, now **state) (last bool, err error) {
	at := t.schedule[i]
	begin, tune := time.Now(), t.settings.autotunes(at, len(t.members))
	if err := t.setMath(ctx, tune); err != nil {
		return false, err
	}
	eval, err := t.evaluator(at)
	if err != nil {
		return false, err
	}
	defer func() { // the next scale's maps have other sizes
		t.tiles = len(eval.tiles)
		eval.close()
		err = errors.Join(err, torch.EmptyCache(t.engine.Device()))
	}()
	if t.began.IsZero() {
		t.began = time.Now()
	}
	before := *now
	switch {
	case before != nil:
		*now = before.finer(eval, at, t.detail(t.schedule[i-1], at))
		before.close()
	case t.settings.Resume != nil:
		*now = t.restore(eval, i)
	default:
		*now = newState(eval, t.settings, t.start(at), at.iterations, 0, t.memory)
	}
	if tune && t.engine.Device() != torch.CPU {
		(*now).evaluated = func() { t.autotuning += time.Since(begin).Seconds() }
	}
	(*now).unrecorded = func(why error) {
		if !t.unrecorded { // once is enough
			t.unrecorded = true
			t.farm.warn(fmt.Sprintf("iterations are sent piece by piece: %s cannot record them as a graph (%v)", t.engine.Device(), why))
		}
	}
	err = (*now).run(ctx, func(steps int, costs []Costs, current bool) { t.tell(i, *now, steps, costs, current, false) }, i == len(t.schedule)-1)
	t.replayed += (*now).replayed
	if err != nil {
		return false, err
	}
	if last = i == len(t.schedule)-1 || ctx.Err() != nil; last {
		t.tell(i, *now, (*now).before+(*now).steps, (*now).bestCosts(), true, true)
	}
	return last, nil
}

// tell reports the costs of scale i after so many steps, which are those of the
// state if that is current.
func (t *transfer) tell(i int, now *state, steps int, costs []Costs, current, last bool) {
	var done, all float64
	for k, at := range t.schedule {
		work := float64(at.width * at.height)
		all += work * float64(at.iterations)
		if k < i {
			done += work * float64(at.iterations)
		} else if k == i {
			done += work * float64(steps-now.before)
		}
	}
	for k, m := range t.members {
		p := Progress{
			Scale: longest(t.schedule[i].width, t.schedule[i].height), Iteration: steps, Iterations: t.settings.iterations,
			Costs: costs[k], Seconds: t.seconds(), Last: last,
		}
		if last || current && steps%max(1, t.settings.StateEvery) == 0 {
			p.Picture = func() *picture.Picture { return m.finish(pictureOf(one(now.x, k))) }
			p.Checkpoint = func() (*Checkpoint, error) { return t.checkpoint(i, now) }
		}
		if last {
			p.Picture = func() *picture.Picture { return m.result(now, k) }
		}
		if all > 0 {
			p.Fraction = done / all
		}
		m.report(p)
	}
}

func (t *transfer) seconds() float64 { return t.earlier + time.Since(t.began).Seconds() }

// result is the best picture of member k, which t is, at the result's size.
func (t *transfer) result(now *state, k int) *picture.Picture {
	final := t.schedule[len(t.schedule)-1]
	best := one(now.bestPictures(), k)
	if shape := torch.Shape(best); int(shape[3]) != final.width || int(shape[2]) != final.height {
		best = torch.Resize(best, int64(final.height), int64(final.width))
	}
	return t.finish(pictureOf(best))
}

// finish gives a picture its colours and its alpha.
func (t *transfer) finish(p *picture.Picture) *picture.Picture {
	if p = t.coloured(p); t.content.Alpha == nil {
		return p
	}
	out := *p
	out.Alpha = resizedPlanes(t.content.Alpha, t.content, p.Width, p.Height)
	plane := p.Width * p.Height
	for i, a := range out.Alpha {
		if a == 0 { // nothing was optimised there
			out.Pixels[i], out.Pixels[plane+i], out.Pixels[2*plane+i] = 1, 1, 1
		}
	}
	return &out
}

// coloured gives a picture its colours.
func (t *transfer) coloured(p *picture.Picture) *picture.Picture {
	if t.settings.Color != ColorContent {
		return p
	}
	if t.colours == nil || t.colours.Width != p.Width || t.colours.Height != p.Height {
		t.colours = resized(t.content, p.Width, p.Height)
	}
	return picture.Recolor(p, t.colours)
}

// evaluator makes the evaluator of a scale.
func (t *transfer) evaluator(at scale) (eval *evaluator, err error) {
	s := t.settings
	eval = newEvaluator(t.farm, s, at.width, at.height)
	eval.alpha = s.alphaAt(at)
	complete := false
	defer func() {
		if !complete {
			eval.close()
		}
	}()
	if len(eval.style) > 0 {
		err = torch.Scoped(func() error { return t.setStyles(eval, at) })
	}
	if err == nil && t.content.Alpha != nil {
		err = torch.Scoped(func() error {
			eval.opaque = opacity(t.content, eval.contentLayers(), t.farm.home, s.Precision.scalar(), at.width, at.height)
			return nil
		})
	}
	if err == nil {
		var sized []*picture.Picture
		for _, m := range t.members {
			sized = append(sized, resized(m.content, at.width, at.height))
		}
		err = eval.setContent(func(part tile) torch.Tensor {
			var parts []torch.Tensor
			for _, p := range sized {
				parts = append(parts, s.part(p, part))
			}
			return stack(parts)
		})
	}
	complete = err == nil
	return eval, err
}

// part is what a tile sees of a picture, on the CPU, in the precision of the run.
func (s *settings) part(p *picture.Picture, t tile) torch.Tensor {
	return torch.Cast(partOf(p, t.seen.Left, t.seen.Top, t.seen.Right-t.seen.Left, t.seen.Bottom-t.seen.Top), s.Precision.scalar())
}

// each stacks a tensor [1,…] of each member to [N,…].
func (t *transfer) each(make func(m *transfer) torch.Tensor) torch.Tensor {
	var parts []torch.Tensor
	for _, m := range t.members {
		parts = append(parts, make(m))
	}
	return stack(parts)
}

// stack makes tensors [1,…] one [N,…].
func stack(parts []torch.Tensor) torch.Tensor {
	if len(parts) == 1 {
		return parts[0]
	}
	sizes := torch.Shape(parts[0])
	return torch.View(torch.Stack(parts, 0), append([]int64{int64(len(parts))}, sizes[1:]...)...)
}

// setStyles gives the evaluator's style terms their regions.
func (t *transfer) setStyles(eval *evaluator, at scale) error {
	for _, m := range t.members {
		if err := m.findStyles(at); err != nil {
			return err
		}
	}
	s := t.settings
	var byStride map[int]guides
	levels := []uint8{0}
	if t.contentMask != nil {
		byStride = t.contentMask.guides(eval.styleLayers(), t.farm.home, s.Precision.scalar(), at.width, at.height)
		levels = t.contentMask.levels()
	}
	for i, term := range eval.style {
		for _, level := range levels {
			share, guide, there := 1.0, torch.Tensor{}, true
			if t.contentMask != nil {
				share = float64(t.contentMask.count[level]) / float64(len(t.contentMask.level))
				guide, there = byStride[strideOf(term.layer)][level]
			}
			// A small region may have no position in a deep layer of a coarse
			// scale.
			var grams, means []torch.Tensor
			for _, m := range t.members {
				style := m.styleOf(term.layer, level)
				grams, means = append(grams, style.gram), append(means, style.mean)
			}
			if !there || grams[0].T == nil {
				continue
			}
			target := statistics{gram: stack(grams)}
			if s.StyleLoss == MomentsLoss {
				target.mean = stack(means)
			}
			eval.addRegion(i, share, guide, target)
		}
	}
	return nil
}

// findStyles finds the targets of the transfer's own styles at a scale.
func (t *transfer) findStyles(at scale) error {
	t.targets, t.targetShares = nil, nil
	for i := range t.styles {
		share := t.settings.share(i, len(t.styles))
		if share == 0 {
			continue
		}
		one, err := t.styleTargets(i, at)
		if err != nil {
			return err
		}
		t.targets, t.targetShares = append(t.targets, one), append(t.targetShares, share)
	}
	return nil
}

// styleOf blends what the styles have of a layer and level; the zero value if
// none has any.
func (t *transfer) styleOf(layer string, level uint8) statistics {
	var parts []statistics
	var shares []float64
	for k, one := range t.targets {
		if part, ok := one[layer][level]; ok {
			parts, shares = append(parts, part), append(shares, t.targetShares[k])
		}
	}
	if len(parts) == 0 {
		return statistics{}
	}
	return blend(parts, shares)
}

// tensor is the picture at a size, in the precision of the run.
func (s *settings) tensor(p *picture.Picture, device torch.Device, width, height int) torch.Tensor {
	return torch.Cast(tensorOf(p, device, width, height), s.Precision.scalar())
}

// start is the pictures to start from at a scale.
func (t *transfer) start(at scale) torch.Tensor {
	return torch.Local(func() torch.Tensor {
		return t.each(func(m *transfer) torch.Tensor {
			return t.settings.tensor(m.startPicture(at), t.farm.home, at.width, at.height)
		})
	})
}

func (t *transfer) startPicture(at scale) *picture.Picture {
	p := t.content
	switch t.settings.Start {
	case StartNoise:
		p = noise(t.settings.Seed, at.width, at.height)
	case StartGray:
		p = picture.New(at.width, at.height)
		for i := range p.Pixels {
			p.Pixels[i] = 0.5
		}
	case StartPicture:
		p = t.settings.Picture
	}
	return p
}

// detail is what the content pictures have at a scale and not at the one before.
// A run that starts from the content keeps it so: not the picture but its change
// is what grows from scale to scale, and no detail has to be found again. Other
// starts have none.
func (t *transfer) detail(before, at scale) torch.Tensor {
	if t.settings.Start != StartContent {
		return torch.Tensor{}
	}
	return torch.Local(func() torch.Tensor {
		device := t.farm.home
		sized := func(at scale) torch.Tensor {
			return t.each(func(m *transfer) torch.Tensor { return t.settings.tensor(m.content, device, at.width, at.height) })
		}
		coarse, fine := sized(before), sized(at)
		return torch.Sub(fine, torch.Resize(coarse, int64(at.height), int64(at.width)))
	})
}

// noise is uniform in [0,1), the same for a seed on every device.
func noise(seed uint64, width, height int) *picture.Picture {
	random := rand.New(rand.NewPCG(seed, 0))
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = random.Float32()
	}
	return p
}
