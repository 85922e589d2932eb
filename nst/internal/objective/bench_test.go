package objective

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// The parts of an iteration at 512×512, on the CPU:
//
//	go test ./nst/internal/objective -run '^$' -bench .
//
// On two cores of an AMD EPYC (family 26, AVX-512), in milliseconds: forward 217,
// backward 202, the Gram matrix of relu1_1 6.0, its gradient 11, Adam 0.27, L-BFGS
// with 20 steps remembered 33, a resize from 362 1.3.
func BenchmarkIteration(b *testing.B) {
	network, err := vgg19.Load(nsttest.Model(b), torch.CPU)
	require.NoError(b, err)
	defer network.Close()
	network.SetFast(true)
	const side = 512
	content, style := gatysLayers(b)
	spec := Spec{Alpha: 1, Beta: 1, Content: content, Style: style}
	layers := spec.Layers()
	scoped := func(b *testing.B, f func()) {
		require.NoError(b, torch.Scoped(func() error { torch.NoGrad(f); return nil }))
	}
	scoped(b, func() {
		x := noise(1, side, side).tensor(torch.CPU)
		timed := func(name string, f func()) {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					scoped(b, f)
				}
			})
		}
		timed("forward", func() { network.Run(x, vgg19.Whole(x), layers, true).Close() })
		b.Run("backward", func(b *testing.B) {
			for b.Loop() {
				scoped(b, func() {
					b.StopTimer()
					pass := network.Run(x, vgg19.Whole(x), layers, true)
					b.StartTimer()
					pass.Backward(func(layer vgg19.Layer, arriving torch.Tensor) torch.Tensor {
						if arriving.T == nil {
							return torch.Clone(pass.Feature(layer))
						}
						return arriving
					})
				})
			}
		})
		first := style[0].Layer
		pass := network.Run(x, vgg19.Whole(x), []vgg19.Layer{first}, false)
		defer pass.Close()
		maps := pass.Feature(first)
		f := Features{F: matrix(maps), Uniform: 1. / (side * side)}
		timed("gram", func() { gram(f) })
		D, into := gram(f), torch.Clone(maps)
		timed("gram-gradient", func() {
			Gram{}.AddGradient(Gradient{matrix(into), false}, f,
				Slopes{Statistics{GramMatrices: torch.Scale(D, 1e-9)}, 1})
		})
		gradient := torch.Clone(x)
		const history = 20
		for name, optimizer := range map[string]*torch.Optimizer{"adam": torch.NewAdam(x, 1e-9, 0.9, 0.99, 1e-8),
			"lbfgs": torch.NewLBFGS(x, 1e-9, history, 1e-9, 1e-9, torch.Wrap{})} {
			for range history + 1 {
				optimizer.Step(gradient)
			}
			timed(name, func() { optimizer.Step(gradient) })
			optimizer.Close()
		}
		small := noise(1, 362, 362).tensor(torch.CPU)
		timed("resize", func() { torch.Resize(small, side, side, torch.Wrap{}) })
	})
}
