package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Meter times the iterations of a run of Stylize, which goes on as they are asked for
// and stands still between.
type Meter struct {
	asked    chan int
	answered chan []float64
	ended    chan struct{}
	cancel   context.CancelFunc

	result *nst.Result // when it has ended
	err    error

	// Of the run's thread:
	begin   time.Time // of the iteration
	left    int       // to be timed
	seconds []float64
	stopped bool // by Stop

	end sync.Once // of asking
}

// StartMeter begins a run of so many square pictures of a size at once, at that size
// alone. Costs are read, and the device waited for, every waitEvery iterations.
func StartMeter(ctx context.Context, engine *nst.Engine, content, style *picture.Picture, o nst.Options, size, batch,
	waitEvery int) *Meter {
	ctx, cancel := context.WithCancel(ctx)
	m := &Meter{asked: make(chan int), answered: make(chan []float64), ended: make(chan struct{}), cancel: cancel}
	content, style = squared(content, size), squared(style, size)
	o.Size, o.StyleSize, o.Scales, o.Iterations = new(0), new(0), nst.ScalesOff, new(math.MaxInt32)
	if o.Autotune == "" {
		o.Autotune = nst.AutotuneOff // it has no end by which to judge
	}
	inputs := slices.Repeat([]nst.Input{{Content: content, Styles: []*picture.Picture{style}}}, batch)
	go func() {
		defer close(m.ended)
		defer cancel()
		results, err := engine.StylizeBatch(ctx, inputs, o, nst.Hooks{ReadEvery: waitEvery,
			Progress: func(p nst.Progress) {
				if p.Input == batch-1 && !p.Last {
					m.tick(p)
				}
			}})
		if len(results) > 0 {
			m.result = results[0]
		}
		if m.err = err; m.stopped && errors.Is(err, context.Canceled) && m.result != nil {
			m.err = nil
		}
	}()
	return m
}

func squared(p *picture.Picture, size int) *picture.Picture { return p.OverWhite().Squared(size) }

// tick is called when an iteration is done; the first is the evaluation of the start.
func (m *Meter) tick(p nst.Progress) {
	if p.Iteration == 0 {
		m.wait()
		m.seconds = append(m.seconds, p.Seconds) // it was done before it was asked for
	} else {
		m.seconds = append(m.seconds, time.Since(m.begin).Seconds())
	}
	for len(m.seconds) >= m.left && m.left >= 0 {
		m.answered <- m.seconds
		m.wait()
	}
	m.begin = time.Now()
}

// wait waits until iterations are asked for. After the end none is timed.
func (m *Meter) wait() {
	n, ok := <-m.asked
	if !ok {
		m.cancel()
		m.stopped, n = true, -1
	}
	m.left, m.seconds = n, nil
}

// Iterate has n iterations run, and returns the seconds of each.
func (m *Meter) Iterate(n int) ([]float64, error) {
	select {
	case m.asked <- n:
	case <-m.ended:
		return nil, m.failure()
	}
	select {
	case seconds := <-m.answered:
		return seconds, nil
	case <-m.ended:
		return nil, m.failure()
	}
}

func (m *Meter) failure() error {
	if m.err == nil {
		return errors.New("the run ended early")
	}
	return m.err
}

// Stop ends the run, and returns its result. It can be called again.
func (m *Meter) Stop() (*nst.Result, error) {
	m.end.Do(func() { close(m.asked) })
	<-m.ended
	return m.result, m.err
}

// flops is the number of floating-point operations of one iteration of a square picture,
// by the arithmetic of the network, whatever way it is computed: two for each
// multiplication of its convolutions forward, as many back to the pixels, and two
// products for each Gram matrix. channels are those of convolutions that have not the
// published number.
func flops(o nst.Options, side int, channels map[string]int) (float64, error) {
	o, err := o.Resolve()
	if err != nil {
		return 0, err
	}
	named := func(layers []nst.LayerWeight, l vgg19.Layer) bool {
		return slices.ContainsFunc(layers, func(w nst.LayerWeight) bool { return w.Layer == l.Name })
	}
	sum, until, in := 0.0, 0.0, 3
	for _, l := range vgg19.Layers {
		positions := math.Pow(float64(side/l.Stride), 2)
		if l.Kind == vgg19.Conv {
			out := l.Channels
			if n := channels[l.Name]; n > 0 {
				out = n
			}
			sum += 2 * 2 * 9 * float64(in*out) * positions
			in = out
		}
		if named(o.StyleLayers, l) {
			sum += 2 * 2 * float64(in*in) * positions
		}
		if named(o.StyleLayers, l) || named(o.ContentLayers, l) {
			until = sum // the network runs no further than the deepest
		}
	}
	return until, nil
}

// matrixGFLOPS measures a product of square float32 matrices on a device, in 10⁹
// operations a second: about what the device can do at most.
func matrixGFLOPS(ctx context.Context, device torch.Device) (best float64, err error) {
	n, times := int64(1024), 5
	if device != torch.CPU {
		n, times = 4096, 20
	}
	thread := torch.StartThread(device)
	defer thread.Close()
	err = thread.Do(ctx, func() error {
		matrix := func() torch.Tensor { return torch.Full(0.5, device, 1, n, n) }
		d := matrix()
		f, sum := torch.Transpose(matrix(), 1, 2), torch.Transpose(matrix(), 1, 2) // as channels-last maps are
		torch.NoGrad(func() {
			for range times {
				begin := time.Now()
				torch.BaddbmmInPlace(sum, d, f, 0, 1)
				torch.Synchronize(device)
				best = max(best, 2*math.Pow(float64(n), 3)/time.Since(begin).Seconds()/1e9)
			}
		})
		return nil
	})
	return best, err
}
