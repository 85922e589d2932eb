package nst

import (
	"context"
	"errors"
	"time"

	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

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
	// AutotuneSeconds is how long the scales at which CUDA's libraries tried algorithms took
	// until they were evaluated for the first time: see Options.Autotune.
	AutotuneSeconds float64
}

// Costs are the values of the objective for one picture.
type Costs struct {
	// Content is J_content, the layers' costs weighted and summed.
	Content float64 `json:"content"`
	// Style is J_l of each style layer, before its weight.
	Style map[string]float64 `json:"style"`
	// TV is the total variation, before its weight; 0 if that is 0.
	TV float64 `json:"tv"`
	// Temporal is how far the picture is from Options.Previous, before its weight: the mean
	// of w·(x − y)² over all values in [0,1]; 0 without.
	Temporal float64 `json:"temporal,omitempty"`
	// Total is J = α·J_content + β·Σ λ_l·J_l + γ·TV + δ·J_temporal, where α is the scale's: at
	// the result's size ContentWeight, at smaller ones more (see Options.Scales).
	Total float64 `json:"total"`
	// GradientL2 is the Euclidean norm of ∂J/∂pixels.
	GradientL2 float64 `json:"gradient_l2"`
}

// ErrDiverged is matched (errors.Is) by the error of a run whose costs stopped
// being numbers.
var ErrDiverged = objective.ErrDiverged

// PanicError is the error of a run that panicked, or whose caller's function did.
type PanicError = torch.PanicError

// costsOf names the layers.
func costsOf(c objective.Costs) Costs {
	out := Costs{Content: c.Content, Style: map[string]float64{}, TV: c.TV, Temporal: c.Temporal,
		Total: c.Total, GradientL2: c.GradientL2}
	for l, v := range c.Style {
		out.Style[l.Name] = v
	}
	return out
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
	// Input is which of StylizeBatch's inputs it is of.
	Input int `json:"-"`
	// State is the run's at this moment. It is nil at the iterations that
	// Hooks.StateEvery, or a GPU, leaves out.
	State *State `json:"-"`
}

// State is a run between two iterations. It can be read until Hooks.Progress returns, on
// the goroutine that called that.
type State struct {
	thread     *torch.Thread
	gone       bool
	picture    func() *picture.Picture
	checkpoint func() (*Checkpoint, error)
}

// ErrState is matched (errors.Is) by the error of a State that is read when, or where, it
// cannot be.
var ErrState = errors.New("the run's state can be read in the callback that it is given to, on its goroutine, alone")

// Picture returns a copy of the picture, of its scale's size; at the end, the result.
func (s *State) Picture() (p *picture.Picture, err error) {
	err = s.read(func() error { p = s.picture(); return nil })
	return p, err
}

// Checkpoint returns a copy of the state, which Options.Resume goes on from.
func (s *State) Checkpoint() (c *Checkpoint, err error) {
	err = s.read(func() (err error) { c, err = s.checkpoint(); return err })
	return c, err
}

func (s *State) read(do func() error) error {
	if s == nil || s.thread == nil || !s.thread.Current() || s.gone {
		return ErrState
	}
	return torch.Retry(s.thread.Device(), do)
}

// end is after the callback: nothing of the run is held on to.
func (s *State) end() { s.gone, s.picture, s.checkpoint = true, nil, nil }

// Hooks are called while pictures are made, on the device's thread; they must not call
// the engine. Each may be nil.
type Hooks struct {
	// Progress is called before each step, and once at the end.
	Progress func(Progress)
	// StateEvery N has Progress.State set only at every N-th iteration and at the end. 0
	// means whenever the state is at hand: at every iteration on
	// the CPU; on a GPU costs are read, and reported, several iterations at a time, and of
	// these the last has its state.
	StateEvery int
	// ReadEvery is how many iterations are sent to the device before costs are read, and
	// reported. 0 means 1 on the CPU, and on a GPU as many as take a tenth of a second, 32
	// at most.
	ReadEvery int
	// Warn is told of what a run goes on in spite of: memory that ran out, a device that
	// failed.
	Warn func(message string)
	// Tile is told how many tiles are done, whenever pictures are gone through tile by
	// tile: styles, the content, and each evaluation twice. Iterations replayed from a graph
	// do not call it.
	Tile func(done, all int)
}

// Stylize gives the content picture the style of the style pictures (of which the style
// targets are averaged, by Options.StyleWeights).
//
// When ctx is done, Stylize returns the best picture so far and ctx's error,
// both; the picture is nil only if nothing had been evaluated. Errors about o
// match ErrInvalidOption, about pictures picture.ErrPicture, about the network
// vgg19.ErrNetwork, about memory torch.ErrOutOfMemory, about a checkpoint
// ErrCheckpoint, and of costs that stopped being numbers ErrDiverged, with the
// best picture before. If the first device fails, the error matches torch.ErrDeviceLost; the
// result, if there is one, is the best picture of a few seconds before, and the engine is of no
// more use. A panic of a hook, or in the engine, is a *PanicError.
func (e *Engine) Stylize(ctx context.Context, content *picture.Picture, styles []*picture.Picture, o Options,
	h Hooks) (*Result, error) {
	results, err := e.StylizeBatch(ctx, []Input{{content, styles}}, o, h)
	if len(results) == 0 {
		return nil, err
	}
	return results[0], err
}

// Input is what one of several pictures is made of.
type Input struct {
	Content *picture.Picture
	Styles  []*picture.Picture
}

// StylizeBatch is Stylize for several inputs of one size at once, each by itself: the
// results are those that Stylize makes of each, but for rounding. A GPU is not filled by
// one small picture. Masks and Resume are for one input alone; a checkpoint cannot be
// made of several. An error is that of all.
func (e *Engine) StylizeBatch(ctx context.Context, inputs []Input, o Options, h Hooks) ([]*Result, error) {
	if len(inputs) == 0 {
		return nil, o.Validate()
	}
	var results []*Result
	if o.Transfer == TransferColor {
		for i, in := range inputs {
			r, err := TransferColors(ctx, in.Content, in.Styles, o)
			if err != nil {
				return nil, err
			}
			results = append(results, r)
			if h.Progress != nil {
				h.Progress(Progress{Input: i, Scale: longest(r.Picture.Width, r.Picture.Height), Fraction: 1,
					Costs: r.Costs, Seconds: r.Seconds, Last: true})
			}
		}
		return results, nil
	}
	r, err := e.newRun(inputs, o, h)
	if err != nil {
		return nil, err
	}
	err = r.do(ctx, func() (err error) {
		results, err = r.optimise(ctx)
		return err
	})
	if err == nil && !r.complete {
		err = ctx.Err()
	}
	return results, err
}

// TransferColors is what Stylize makes with TransferColor, without an engine: the content
// at the result's size, with the colours of the styles. When ctx is done it returns ctx's
// error; its other errors are Stylize's.
func TransferColors(ctx context.Context, content *picture.Picture, styles []*picture.Picture,
	o Options) (*Result, error) {
	began := time.Now()
	s, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newItem(s, Input{content, styles})
	if err != nil {
		return nil, err
	}
	width, height := s.contentSize(m.content, 1)
	var out *picture.Picture
	err = torch.Scoped(func() error { // resizing is libtorch's
		p := resized(m.content, width, height, s.Wrap.Directions())
		out = picture.New(width, height)
		out.Alpha = p.Alpha
		for _, one := range m.styles {
			if err := ctx.Err(); err != nil {
				return err
			}
			for k, v := range picture.MatchColors(p, one.picture).Pixels {
				out.Pixels[k] += float32(one.share) * v
			}
		}
		clamp(out.Pixels) // what rounding adds to a sum of shares
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Result{Picture: out, Costs: Costs{Style: map[string]float64{}}, Seconds: time.Since(began).Seconds(),
		Precision: s.Precision, Tiles: 1}, nil
}

// Evaluate returns the costs of the picture that a run would start from, at the result's
// size, and ∂J/∂pixels: channel by channel, row by row, in float32.
func (e *Engine) Evaluate(ctx context.Context, content, style *picture.Picture, o Options) (costs Costs,
	gradient []float32, err error) {
	o.Scales = ScalesOff
	r, err := e.newRun([]Input{{content, []*picture.Picture{style}}}, o, Hooks{})
	if err != nil {
		return Costs{}, nil, err
	}
	err = r.do(ctx, func() error {
		eval, err := r.evaluator(r.schedule[0])
		if err != nil {
			return err
		}
		defer eval.Close()
		values, g, err := eval.Evaluate(r.start(r.schedule[0]))
		if err == nil {
			costs, gradient = costsOf(eval.Costs(torch.Float64s(values))[0]), torch.Floats(g)
		}
		return err
	})
	return costs, gradient, err
}
