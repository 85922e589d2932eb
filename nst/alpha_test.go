package nst

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// The result has the content's alpha, bit for bit, whole and in tiles; over white it has
// none, and what is transparent in a style adds nothing to its targets.
func TestAlpha(t *testing.T) {
	e, err := Open(context.Background(), nsttest.Model(t), OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer e.Close()
	ctx := context.Background()
	content, style := fading(noise(1, 64, 48)), noise(2, 64, 64)
	for _, tile := range []Tile{TileOff, "32"} {
		r, err := e.Stylize(ctx, content, []*picture.Picture{style},
			Options{Size: new(0), Iterations: new(3), Tile: tile}, Hooks{})
		require.NoError(t, err)
		assert.Equal(t, content.Alpha, r.Picture.Alpha, tile)
		require.NoError(t, r.Picture.Check())
		assert.Equal(t, float32(1), r.Picture.Pixels[0], "white where nothing is to be seen")
	}
	small, err := e.Stylize(ctx, content, []*picture.Picture{style}, Options{Size: new(32), Iterations: new(1)},
		Hooks{})
	require.NoError(t, err)
	require.Len(t, small.Picture.Alpha, 32*24)
	assert.InDelta(t, content.Alpha[40], small.Picture.Alpha[20], 0.05)
	white, err := e.Stylize(ctx, content, []*picture.Picture{style},
		Options{Size: new(0), Iterations: new(0), Alpha: AlphaWhite}, Hooks{})
	require.NoError(t, err)
	assert.Equal(t, content.OverWhite(), white.Picture)

	// A style whose left half is transparent is the right half, but for the seam.
	half := noise(3, 128, 64)
	half.Alpha = make([]float32, 128*64)
	right := picture.New(64, 64)
	for i := range half.Alpha {
		if x, y := i%128, i/128; x >= 64 {
			half.Alpha[i] = 1
			for c := range 3 {
				right.Pixels[c*64*64+y*64+x-64] = half.Pixels[c*128*64+i]
			}
		}
	}
	cost := func(style *picture.Picture, alpha Alpha) float64 {
		costs, _, err := e.Evaluate(ctx, noise(4, 64, 48), style,
			Options{Size: new(0), Alpha: alpha, Preset: Classic, ContentWeight: new(0.0),
				StyleLayers: []LayerWeight{{Layer: "relu1_1"}, {Layer: "relu2_1"}}})
		require.NoError(t, err)
		return costs.Total
	}
	kept, alone, over := cost(half, AlphaKeep), cost(right, AlphaKeep), cost(half, AlphaWhite)
	assert.Less(t, math.Abs(kept/alone-1), 0.1*math.Abs(over/alone-1), "%v, alone %v, over white %v", kept, alone, over)

	nothing := noise(5, 32, 32)
	nothing.Alpha = make([]float32, 32*32)
	_, err = e.Stylize(ctx, nothing, []*picture.Picture{style}, Options{Size: new(0), Iterations: new(0)}, Hooks{})
	require.ErrorIs(t, err, ErrInvalidOption)
	assert.ErrorContains(t, err, "wholly transparent")
	_, err = e.StylizeBatch(ctx, []Input{{Content: content, Styles: []*picture.Picture{style}},
		{Content: content, Styles: []*picture.Picture{style}}}, Options{Size: new(0)}, Hooks{})
	assert.ErrorContains(t, err, "one picture at a time")
}
