package nst

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

func TestMain(m *testing.M) { nsttest.RunWithPretend(m) }

// fading gives a picture alpha, from 0 at the left to 1 at the right.
func fading(p *picture.Picture) *picture.Picture {
	p.Alpha = make([]float32, p.Width*p.Height)
	for i := range p.Alpha {
		p.Alpha[i] = min(max(float32(i%p.Width)/float32(p.Width)*2-0.5, 0), 1)
	}
	return p
}

// The gradient of real pictures at 320 pixels: the fast one within 5e-3 of the
// exact one (relative L2; measured 1.9e-3), bfloat16's within 0.15 (measured 0.1).
func TestPrecisionsAgree(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	open := func(name string) *picture.Picture {
		p, err := picture.Open(nsttest.Demo(t, name))
		require.NoError(t, err)
		return p
	}
	content, style := open("content.png"), open("style.png")
	gradient := func(p Precision) ([]float32, Costs) {
		costs, out, err := e.Evaluate(context.Background(), content, style, Options{Precision: p, Size: new(192)})
		require.NoError(t, err)
		return out, costs
	}
	want, wantCosts := gradient(Exact)
	for _, c := range []struct {
		precision Precision
		tolerance float64
	}{{Fast, 5e-3}, {BF16, 0.15}, {Double, 5e-3}, {Fast, 5e-3}} { // again: bfloat16's weights are not what is left
		precision, tolerance := c.precision, c.tolerance
		got, costs := gradient(precision)
		difference := nsttest.Difference(got, want)
		t.Logf("%s: gradient %.2g, total %.2g", precision, difference, costs.Total/wantCosts.Total-1)
		assert.LessOrEqual(t, difference, tolerance, precision)
		assert.InEpsilon(t, wantCosts.Total, costs.Total, tolerance)
	}
}
