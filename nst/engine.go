// Package nst is neural style transfer: it changes a picture until a
// convolutional network sees in it what it sees in a content picture, with the
// textures that it sees in style pictures (Gatys, Ecker and Bethge,
// arXiv:1508.06576).
//
// An Engine holds a device and a network; Stylize is one transfer. The costs
// are in cost.go, the objective and its gradient in evaluator.go, the loop in
// optimise.go.
package nst

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Engine is a device with a feature network on it. It is safe for concurrent
// use; transfers of one engine run one after the other. The owner closes it.
type Engine struct {
	thread  *torch.Thread
	network *vgg19.Network
}

// Open readies a device ("auto", "cpu", "cuda", "cuda:N"; see
// torch.ParseDevice) and loads a feature network (see vgg19.Load) onto it.
func Open(ctx context.Context, model, device string) (*Engine, error) {
	d, err := torch.ParseDevice(device)
	if err != nil {
		return nil, err
	}
	e := &Engine{thread: torch.StartThread(d)}
	err = e.thread.Do(ctx, func() (err error) {
		e.network, err = vgg19.Load(model, d)
		return err
	})
	if err != nil {
		e.thread.Close()
		return nil, err
	}
	return e, nil
}

// Device is where the engine works.
func (e *Engine) Device() torch.Device { return e.thread.Device() }

// Close frees the network and ends the device's thread. No transfer may be
// running.
func (e *Engine) Close() {
	_ = e.thread.Do(context.Background(), func() error { e.network.Close(); return nil })
	e.thread.Close()
}

// Describe returns what the network's file says of itself.
func (e *Engine) Describe(ctx context.Context) (d *vgg19.Description, err error) {
	err = e.thread.Do(ctx, func() error {
		d, err = e.network.Describe(e.Device())
		return err
	})
	return d, err
}

// Threads is the number of threads with which the engine computes on the CPU.
func (e *Engine) Threads() (n int) {
	_ = e.thread.Do(context.Background(), func() error { n = torch.Threads(); return nil })
	return n
}

// Result is what Stylize made.
type Result struct {
	// Picture is the best picture of the run: of all that were evaluated, the
	// one with the lowest total.
	Picture *picture.Picture
	// Costs are the picture's.
	Costs Costs
	// Iterations is the number of steps taken, Seconds how long they took.
	Iterations int
	Seconds    float64
	// PeakMemory is the most memory in use, in bytes: of the device's tensors,
	// or on the CPU of the whole process.
	PeakMemory int64
	Precision  Precision
	// Tiles is in how many parts the picture was evaluated.
	Tiles int
}

// Stylize gives the content picture the style of the style pictures (of which
// the Gram matrices are averaged, by Options.StyleWeights). report, which may be nil, is called on the
// device's thread before each step and after the last; it must not call the
// engine.
//
// When ctx is done, Stylize returns the best picture so far and ctx's error,
// both; the picture is nil only if nothing had been evaluated. Errors about o
// match ErrInvalidOption, about pictures picture.ErrPicture, about the network
// vgg19.ErrNetwork, about memory torch.ErrOutOfMemory.
func (e *Engine) Stylize(ctx context.Context, content *picture.Picture, styles []*picture.Picture, o Options, report func(Progress)) (*Result, error) {
	s, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	width, height, err := s.check(content, styles)
	if err != nil {
		return nil, err
	}
	if report == nil {
		report = func(Progress) {}
	}
	var result *Result
	err = e.thread.Do(ctx, func() (err error) {
		result, err = e.stylize(ctx, content, styles, width, height, s, report)
		return err
	})
	if err == nil {
		err = ctx.Err()
		if err != nil && result.Iterations == s.iterations {
			err = nil // it was done before it was cancelled
		}
	}
	return result, err
}

// check returns the result's sizes, or what is wrong with the pictures.
func (s *settings) check(content *picture.Picture, styles []*picture.Picture) (width, height int, err error) {
	if len(styles) == 0 {
		return 0, 0, fmt.Errorf("%w: there is no style picture", picture.ErrPicture)
	}
	deepest, err := vgg19.Deepest(s.layers())
	if err != nil {
		return 0, 0, err
	}
	minimum := deepest.Stride // less has no position in that layer
	if n := len(s.StyleWeights); n > 0 && n != len(styles) {
		return 0, 0, invalid("StyleWeights", "are %d, for %d style pictures", n, len(styles))
	}
	check := func(what string, p *picture.Picture, fit func(*picture.Picture) (int, int)) (w, h int, err error) {
		if err := p.Check(); err != nil {
			return 0, 0, fmt.Errorf("the %s: %w", what, err)
		}
		w, h = fit(p)
		for _, side := range []struct {
			w, h int
			how  string
		}{{p.Width, p.Height, "is"}, {w, h, fmt.Sprintf("becomes, with its longest side %d,", max(w, h))}} {
			if min(side.w, side.h) < minimum {
				return 0, 0, fmt.Errorf("%w: the %s %s %d×%d; layer %s needs at least %d×%d", picture.ErrPicture, what, side.how, side.w, side.h, deepest.Name, minimum, minimum)
			}
		}
		return w, h, nil
	}
	if width, height, err = check("content picture", content, s.fitContent); err != nil {
		return 0, 0, err
	}
	for i, p := range styles {
		what := "style picture"
		if len(styles) > 1 {
			what = fmt.Sprintf("style picture %d", i+1)
		}
		if _, _, err := check(what, p, s.fitStyle); err != nil {
			return 0, 0, err
		}
	}
	return width, height, nil
}

// fitContent is the result's size.
func (s *settings) fitContent(p *picture.Picture) (width, height int) {
	return fit(p, s.Size, 1)
}

// fitStyle is the size at which a style picture is used.
func (s *settings) fitStyle(p *picture.Picture) (width, height int) {
	return fit(p, s.StyleSize, s.StyleScale)
}

// fit is the picture's size with its longest side made size times scale.
func fit(p *picture.Picture, size int, scale float64) (width, height int) {
	longest := max(p.Width, p.Height)
	if size != OwnSize {
		longest = size
	}
	longest = int(math.Round(float64(longest) * scale))
	return picture.Fit(p.Width, p.Height, longest)
}

// stylize runs in a scope on the device's thread.
func (e *Engine) stylize(ctx context.Context, content *picture.Picture, styles []*picture.Picture, width, height int, s *settings, report func(Progress)) (*Result, error) {
	device := e.Device()
	if err := torch.ResetPeak(device); err != nil {
		return nil, err
	}
	if err := e.network.SetPooling(s.Pooling); err != nil && s.Pooling != vgg19.MaxPooling {
		return nil, err
	}
	if err := e.network.Cast(s.Precision.scalar()); err != nil {
		return nil, err
	}
	eval, err := e.targets(content, styles, width, height, s)
	if err != nil {
		return nil, err
	}
	defer eval.close()
	run := newState(eval, s, s.tensor(s.start(content, width, height), device, width, height))
	defer run.close()
	began := time.Now()
	steps, err := run.run(ctx, report)
	if err != nil && !errors.Is(err, ErrDiverged) {
		return nil, err
	}
	torch.Synchronize(device)
	result := &Result{
		Picture: picture.FromTensor(run.best), Costs: run.bestCosts, Iterations: steps,
		Seconds: time.Since(began).Seconds(), Precision: s.Precision, Tiles: 1,
	}
	memory, memoryErr := torch.MemoryOf(device)
	result.PeakMemory = memory.Peak
	return result, errors.Join(err, memoryErr)
}

// targets makes the evaluator. Each picture has a scope of its own, so that its
// features go before the next one's come.
func (e *Engine) targets(content *picture.Picture, styles []*picture.Picture, width, height int, s *settings) (*evaluator, error) {
	device := e.Device()
	if _, err := e.network.Require(device, s.layers()); err != nil {
		return nil, err
	}
	eval := newEvaluator(e.network, s)
	err := torch.Scoped(func() error {
		eval.setContent(s.tensor(content, device, width, height))
		return nil
	})
	for i := 0; i < len(styles) && err == nil; i++ {
		err = torch.Scoped(func() error {
			w, h := s.fitStyle(styles[i])
			share := 1 / float64(len(styles))
			if len(s.StyleWeights) > 0 {
				share = s.StyleWeights[i]
			}
			if share > 0 {
				eval.addStyle(s.tensor(styles[i], device, w, h), share)
			}
			return nil
		})
	}
	if err != nil {
		eval.close()
		return nil, err
	}
	return eval, nil
}

// tensor is the picture at a size, in the precision of the run.
func (s *settings) tensor(p *picture.Picture, device torch.Device, width, height int) torch.Tensor {
	return torch.Cast(p.Tensor(device, width, height), s.Precision.scalar())
}

// start returns the picture to start from.
func (s *settings) start(content *picture.Picture, width, height int) *picture.Picture {
	switch s.Start {
	case StartNoise:
		return noise(s.Seed, width, height)
	case StartGray:
		gray := picture.New(width, height)
		for i := range gray.Pixels {
			gray.Pixels[i] = 0.5
		}
		return gray
	case StartPicture:
		return s.Picture
	default:
		return content
	}
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
