package nst

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Benchmark is a transfer whose iterations are run and timed on demand: what
// `nst bench` measures. The engine does nothing else until Close.
type Benchmark struct {
	precision Precision
	flops     float64
	replayed  int
	closed    sync.Once
	asked     chan work
	answered  chan timing
}

// work is iterations to be run: one by one, each waited for, or all sent ahead.
type work struct {
	iterations int
	ahead      bool
}

type timing struct {
	seconds  []float64
	peak     int64
	replayed int
	err      error
}

// StartBenchmark readies a transfer at one size: square pictures of size pixels a
// side (the given ones are squeezed into it), batch of them at once.
func (e *Engine) StartBenchmark(ctx context.Context, content, style *picture.Picture, o Options, size, batch int) (*Benchmark, error) {
	square := func(p *picture.Picture) (out *picture.Picture, err error) {
		if err := p.Check(); err != nil {
			return nil, err
		}
		err = torch.Scoped(func() error {
			out = resized(p.OverWhite(), size, size)
			return nil
		})
		return out, err
	}
	c, contentErr := square(content)
	s, styleErr := square(style)
	if err := errors.Join(contentErr, styleErr); err != nil {
		return nil, err
	}
	o.Size, o.StyleSize, o.Scales, o.Iterations = new(0), new(0), ScalesOff, new(math.MaxInt32)
	var all []*transfer
	for range batch {
		t, err := e.newTransfer(c, []*picture.Picture{s}, o, func(Progress) {})
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	t := all[0]
	if err := t.join(all[1:]); err != nil {
		return nil, err
	}
	b := &Benchmark{precision: t.settings.Precision, flops: float64(batch) * flops(t.settings, size), asked: make(chan work), answered: make(chan timing)}
	ready := make(chan error, 1)
	go func() {
		err := t.do(ctx, func() error { return b.serve(ctx, t, ready) })
		select {
		case ready <- err: // it failed before it was ready
		default:
		}
		for range b.asked {
			b.answered <- timing{err: err}
		}
	}()
	if err := <-ready; err != nil {
		close(b.asked)
		return nil, err
	}
	return b, nil
}

// serve runs iterations as they are asked for. It is work for transfer.do.
func (b *Benchmark) serve(ctx context.Context, t *transfer, ready chan<- error) error {
	device := t.engine.Device()
	defer torch.EmptyCache(device)
	at := t.schedule[0]
	if err := t.setMath(ctx, t.settings.Autotune == AutotuneOn); err != nil { // it has no end by which to judge
		return err
	}
	eval, err := t.evaluator(at)
	if err != nil {
		return err
	}
	defer eval.close()
	now := newState(eval, t.settings, t.start(at), at.iterations, 0, t.memory)
	defer now.close()
	iterate := func() error {
		var err error
		if now.values.T == nil {
			err = now.evaluate() // the first needs no step
		} else {
			err = now.advance()
		}
		return err
	}
	ready <- nil
	for w := range b.asked {
		var out timing
		for begin, i := time.Now(), 1; i <= w.iterations; i++ {
			if out.err = errors.Join(ctx.Err(), torch.Scoped(iterate)); out.err != nil {
				break
			}
			if w.ahead && i < w.iterations {
				continue
			}
			torch.Synchronize(device)
			each := time.Since(begin).Seconds()
			if w.ahead {
				each /= float64(w.iterations)
			}
			out.seconds = append(out.seconds, each)
			begin = time.Now()
		}
		memory, err := torch.MemoryOf(device)
		out.peak, out.replayed, out.err = memory.Peak, now.replayed, errors.Join(out.err, err)
		b.answered <- out
	}
	return nil
}

// Evaluate returns the costs of the picture that a transfer would start from, at
// the result's size, and ∂J/∂pixels: channel by channel, row by row, in float32.
func (e *Engine) Evaluate(ctx context.Context, content, style *picture.Picture, o Options) (costs Costs, gradient []float32, err error) {
	o.Scales = ScalesOff
	t, err := e.newTransfer(content, []*picture.Picture{style}, o, func(Progress) {})
	if err != nil {
		return Costs{}, nil, err
	}
	err = t.do(ctx, func() error {
		eval, err := t.evaluator(t.schedule[0])
		if err != nil {
			return err
		}
		defer eval.close()
		all, g, err := eval.evaluate(t.start(t.schedule[0]))
		if err == nil {
			costs, gradient = all[0], torch.Floats(g)
		}
		return err
	})
	return costs, gradient, err
}

// Iterate runs n iterations and returns the seconds that each took, and the most
// memory used so far (see Result.PeakMemory).
func (b *Benchmark) Iterate(n int) (seconds []float64, peak int64, err error) {
	t := b.run(work{iterations: n})
	return t.seconds, t.peak, t.err
}

// Ahead runs n iterations without waiting for any but the last, and returns the
// seconds of one: what a device does when it is never kept waiting.
func (b *Benchmark) Ahead(n int) (seconds float64, err error) {
	t := b.run(work{n, true})
	if t.err != nil || len(t.seconds) == 0 {
		return 0, t.err
	}
	return t.seconds[0], nil
}

func (b *Benchmark) run(w work) timing {
	b.asked <- w
	t := <-b.answered
	b.replayed = t.replayed
	return t
}

// Replayed is how many of the iterations so far were replayed (see Result.Replayed).
func (b *Benchmark) Replayed() int { return b.replayed }

// Precision is that of the run.
func (b *Benchmark) Precision() Precision { return b.precision }

// FLOPs is the number of floating-point operations of one iteration of all the
// pictures by the arithmetic of the network, whatever way it is computed: two
// for each multiplication of its convolutions forward, as many back to the
// pixels, and two products for each Gram matrix.
func (b *Benchmark) FLOPs() float64 { return b.flops }

// Close ends the benchmark. It may not be called twice.
func (b *Benchmark) Close() { b.closed.Do(func() { close(b.asked) }) }

func flops(s *settings, side int) (sum float64) {
	in, deepest := 3, s.deepest()
	for _, l := range vgg19.Layers {
		positions := math.Pow(float64(side/l.Stride), 2)
		if l.Kind == vgg19.Conv {
			sum += 2 * 2 * 9 * float64(in*l.Channels) * positions
			in = l.Channels
		}
		for _, style := range s.style {
			if style.layer == l.Name {
				sum += 2 * 2 * float64(l.Channels*l.Channels) * positions
			}
		}
		if l.Name == deepest.Name {
			break
		}
	}
	return sum
}

// MatrixGFLOPS measures a product of square float32 matrices on the engine's
// device, in 10⁹ operations a second: about what the device can do at most.
func (e *Engine) MatrixGFLOPS(ctx context.Context) (best float64, err error) {
	n, times := int64(1024), 5
	if e.Device() != torch.CPU {
		n, times = 4096, 20
	}
	err = e.thread().Do(ctx, func() error {
		matrix := func() torch.Tensor { return torch.Full(0.5, e.Device(), 1, n, n) }
		d := matrix()
		f, sum := torch.Transpose(matrix(), 1, 2), torch.Transpose(matrix(), 1, 2) // as channels-last maps are
		torch.NoGrad(func() {
			for range times {
				begin := time.Now()
				torch.AddProduct(sum, d, f, 0, 1)
				torch.Synchronize(e.Device())
				best = max(best, 2*math.Pow(float64(n), 3)/time.Since(begin).Seconds()/1e9)
			}
		})
		return nil
	})
	return best, err
}
