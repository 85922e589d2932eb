package nst

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

func TestMain(m *testing.M) { nsttest.RunWithPretend(m) }

// The costs by hand: two feature maps of two positions.
func TestCosts(t *testing.T) {
	nsttest.NoLeaks(t)
	require.NoError(t, torch.Scoped(func() error {
		a := torch.FromFloats([]float32{1, 2, 3, 4}, torch.CPU, 1, 2, 1, 2) // maps (1,2) and (3,4)
		b := torch.FromFloats([]float32{0, 0, 0, 2}, torch.CPU, 1, 2, 1, 2)
		assert.Equal(t, []float32{5. / 2, 11. / 2, 11. / 2, 25. / 2}, torch.Floats(GramMatrix(a)))
		assert.Equal(t, []float32{0, 0, 0, 2}, torch.Floats(GramMatrix(b)))
		assert.InDelta(t, (1+4+9+4)/(4.*2*2), read(ContentCost(a, b)), 1e-6)
		style := StyleCost(GramMatrix(a), GramMatrix(b))
		assert.InDelta(t, (2.5*2.5+2*5.5*5.5+10.5*10.5)/(4.*4), read(style), 1e-5)
		assert.InDelta(t, 10*18./16+40*read(style), read(TotalCost(ContentCost(a, b), style, 10, 40)), 1e-3)
		return nil
	}))
}

// judge is the total by autograd alone: the paper's costs, differentiated as
// they stand. It returns the total and ∂J/∂x.
func judge(e *evaluator, x torch.Tensor) (float64, []float32) {
	torch.ClearGradient(x)
	content, style := torch.Full(0, torch.CPU), torch.Full(0, torch.CPU)
	content, style = torch.Cast(content, torch.Float64), torch.Cast(style, torch.Float64)
	if len(e.content) > 0 {
		for i, a := range e.network.Features(x, names(e.content)) {
			t := e.content[i]
			content = torch.Add(content, torch.Scale(ContentCost(t.target, a), t.weight*t.unit))
		}
	}
	if len(e.style) > 0 {
		for i, a := range e.network.Features(x, names(e.style)) {
			t := e.style[i]
			style = torch.Add(style, torch.Scale(StyleCost(t.target, GramMatrix(a)), t.weight*t.unit))
		}
	}
	total := TotalCost(content, style, e.alpha, e.beta)
	for _, dim := range []int64{2, 3} { // the total variation, as its formula stands
		n := torch.Shape(x)[dim]
		d := torch.Sub(torch.Slice(x, dim, 1, n), torch.Slice(x, dim, 0, n-1))
		total = torch.Add(total, torch.Scale(sumOfSquares(d), e.gamma/float64(torch.Count(x))))
	}
	torch.Backward([]torch.Tensor{total}, nil)
	return read(torch.Detach(total)), torch.Floats(torch.Gradient(x))
}

// The evaluator's gradient, fed in by hand at the layers, is autograd's.
func TestGradientIsAutograds(t *testing.T) {
	nsttest.NoLeaks(t)
	network, err := vgg19.Load(nsttest.Model(t), torch.CPU)
	require.NoError(t, err)
	defer network.Close()
	layer := func(names ...string) (out []LayerWeight) {
		for i, n := range names {
			out = append(out, LayerWeight{n, new(0.3 + float64(i))})
		}
		return out
	}
	for name, o := range map[string]Options{
		"classic":               {Preset: Classic},
		"balanced":              {},
		"average pooling":       {Pooling: vgg19.AveragePooling},
		"a layer of both costs": {ContentLayers: layer("relu3_1", "relu4_1"), StyleLayers: layer("relu4_1", "relu1_2")},
		"before and after ReLU": {ContentLayers: layer("conv2_2", "pool3"), StyleLayers: layer("conv2_2", "relu2_2", "pool1")},
		"gatys":                 {Preset: Gatys},
		"total variation":       {TVWeight: new(50.0)},
		"content alone":         {StyleWeight: new(0.0)},
		"style alone":           {ContentWeight: new(0.0)},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := o.withDefaults()
			require.NoError(t, err)
			require.NoError(t, network.SetPooling(s.Pooling))
			require.NoError(t, torch.Scoped(func() error {
				e := newEvaluator(network, s)
				defer e.close()
				e.setContent(noise(1, 50, 37).Tensor(torch.CPU, 50, 37))
				e.addStyle(noise(2, 33, 48).Tensor(torch.CPU, 33, 48), 0.25)
				e.addStyle(noise(3, 64, 64).Tensor(torch.CPU, 64, 64), 0.75)
				x := noise(4, 50, 37).Tensor(torch.CPU, 50, 37)
				torch.RequireGrad(x, true)
				costs, gradient := e.evaluate(x)
				got := torch.Floats(gradient)
				total, want := judge(e, x)
				assert.InEpsilon(t, total, costs.Total, 1e-5)
				var difference, size float64
				for i := range want {
					difference += math.Pow(float64(got[i])-float64(want[i]), 2)
					size += math.Pow(float64(want[i]), 2)
				}
				require.Positive(t, size)
				assert.LessOrEqual(t, math.Sqrt(difference/size), 1e-5, "relative L2 error")
				assert.InEpsilon(t, math.Sqrt(size), costs.GradientL2, 1e-5)
				return nil
			}))
		})
	}
}

// A CPU tensor that slips into the evaluation is found by the pretend
// accelerator.
func TestSlippedTensorIsCaught(t *testing.T) {
	e, err := Open(context.Background(), "vgg19/testdata/small.pt", "pretend:0")
	require.NoError(t, err)
	defer e.Close()
	nsttest.NoLeaks(t)
	s, err := Options{}.withDefaults()
	require.NoError(t, err)
	for name, other := range map[string]torch.Device{"a CPU tensor": torch.CPU, "another device's tensor": "pretend:1"} {
		t.Run(name, func(t *testing.T) {
			err := e.thread.Do(context.Background(), func() error {
				eval := newEvaluator(e.network, s)
				defer eval.close()
				p := noise(1, 32, 32)
				eval.setContent(p.Tensor(e.Device(), 32, 32))
				eval.addStyle(p.Tensor(e.Device(), 32, 32), 1)
				slipped := torch.Keep(torch.To(eval.style[2].target, other))
				torch.Close(eval.style[2].target)
				eval.style[2].target = slipped
				x := p.Tensor(e.Device(), 32, 32)
				torch.RequireGrad(x, true)
				eval.evaluate(x)
				return nil
			})
			assert.ErrorContains(t, err, "same device")
		})
	}
}

func TestCheckNamesTheTerm(t *testing.T) {
	nan := math.NaN()
	for want, c := range map[string]Costs{
		"the content cost":          {Content: math.Inf(1)},
		"the style cost of relu2_1": {Style: map[string]float64{"relu1_1": 1, "relu2_1": nan}, Total: nan},
		"the gradient":              {GradientL2: nan},
	} {
		err := c.check(7)
		assert.ErrorIs(t, err, ErrDiverged)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "iteration 7")
	}
	assert.NoError(t, Costs{}.check(0))
}
