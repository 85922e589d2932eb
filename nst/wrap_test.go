package nst_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// shifted is a picture that comes round, moved to the right and down.
func shifted(p *picture.Picture, dx, dy int) *picture.Picture {
	out := picture.New(p.Width, p.Height)
	for c := range 3 {
		for y := range p.Height {
			for x := range p.Width {
				to := (y+dy+p.Height)%p.Height*p.Width + (x+dx+p.Width)%p.Width
				out.Pixels[c*p.Height*p.Width+to] = p.Pixels[(c*p.Height+y)*p.Width+x]
			}
		}
	}
	return out
}

// What comes round has no edges: shifting the content and the start by the deepest layer's
// stride shifts the result.
func TestWrapShifts(t *testing.T) {
	e := slim(t, "cpu")
	content, start := nst.NoiseOf(1, 64, 48), nst.NoiseOf(2, 64, 48)
	style := nst.NoiseOf(3, 48, 48)
	for _, c := range []struct {
		tile      nst.Tile
		precision nst.Precision
		tolerance float64
	}{{nst.TileOff, nst.Exact, 1e-3}, {"32", nst.Exact, 1e-3}, {nst.TileOff, nst.Double, 1e-6}} {
		make := func(dx, dy int) []float32 {
			r, err := e.Stylize(context.Background(), shifted(content, dx, dy), []*picture.Picture{style}, nst.Options{
				Size: new(0), Start: nst.StartPicture, Picture: shifted(start, dx, dy), Wrap: nst.WrapXY,
				Scales: nst.ScalesOff, Optimizer: nst.Adam, Iterations: new(5), Precision: c.precision, Tile: c.tile,
			}, nst.Hooks{})
			require.NoError(t, err)
			return shifted(r.Picture, -dx, -dy).Pixels
		}
		// Not to the last bit: sums over positions begin elsewhere, and Adam's step is as long
		// where the gradient is next to nothing.
		difference := nsttest.Difference(make(0, 0), make(16, 32))
		t.Logf("tiles %s, %s: %.2g", c.tile, c.precision, difference)
		assert.LessOrEqual(t, difference, c.tolerance)
	}
}

// steps is the mean square of the differences between each column and the next; the last
// is that across the seam.
func steps(p *picture.Picture) []float64 {
	out := make([]float64, p.Width)
	for row := range 3 * p.Height {
		for x := range p.Width {
			d := p.Pixels[row*p.Width+x] - p.Pixels[row*p.Width+(x+1)%p.Width]
			out[x] += float64(d*d) / float64(3*p.Height)
		}
	}
	return out
}

// turned is a picture with its rows as columns.
func turned(p *picture.Picture) *picture.Picture {
	out := picture.New(p.Height, p.Width)
	for c := range 3 {
		for y := range p.Height {
			for x := range p.Width {
				out.Pixels[(c*p.Width+x)*p.Height+y] = p.Pixels[(c*p.Height+y)*p.Width+x]
			}
		}
	}
	return out
}

// A texture that comes round is as rough across its seams as anywhere; one that does not
// is not.
func TestTextureWithoutSeams(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	style := resized(t, open(t, nsttest.Demo(t, "style.png")), 128, 96)
	rough := func(wrap nst.Wrap) (x, y float64) {
		content, o, err := nst.Texture(nst.Options{Wrap: wrap, Iterations: new(60)}, 128, 128)
		require.NoError(t, err)
		r, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
		require.NoError(t, err)
		ratio := func(p *picture.Picture) float64 {
			all, sum := steps(p), 0.0
			for _, s := range all[:len(all)-1] {
				sum += s
			}
			return math.Sqrt(all[len(all)-1] / (sum / float64(len(all)-1)))
		}
		return ratio(r.Picture), ratio(turned(r.Picture))
	}
	x, y := rough(nst.WrapXY)
	t.Logf("both: %.2f across the sides, %.2f from top to bottom", x, y)
	assert.InDelta(t, 1, x, 0.35)
	assert.InDelta(t, 1, y, 0.35)
	x, y = rough(nst.WrapX)
	t.Logf("x: %.2f, %.2f", x, y)
	assert.InDelta(t, 1, x, 0.35)
	assert.Greater(t, y, 1.6)
}
