package nst_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// crop is a part of a picture's columns.
func crop(p *picture.Picture, from, to int) *picture.Picture {
	out := picture.New(to-from, p.Height)
	for c := range 3 {
		for y := range p.Height {
			copy(out.Pixels[(c*p.Height+y)*(to-from):(c*p.Height+y+1)*(to-from)],
				p.Pixels[(c*p.Height+y)*p.Width+from:(c*p.Height+y)*p.Width+to])
		}
	}
	return out
}

// resized is a picture at a size.
func resized(t *testing.T, p *picture.Picture, w, h int) (out *picture.Picture) {
	require.NoError(t, torch.Scoped(func() error { out = nst.PictureOf(nst.TensorOf(p, torch.CPU, w, h)); return nil }))
	return out
}

// beside joins two pictures of one height.
func beside(a, b *picture.Picture) *picture.Picture {
	out := picture.New(a.Width+b.Width, a.Height)
	for row := range 3 * a.Height {
		copy(out.Pixels[row*out.Width:], a.Pixels[row*a.Width:(row+1)*a.Width])
		copy(out.Pixels[row*out.Width+a.Width:], b.Pixels[row*b.Width:(row+1)*b.Width])
	}
	return out
}

// gram is the Gram matrix of feature maps [1,C,H,W].
func gram(a torch.Tensor) torch.Tensor {
	f := torch.Flatten(a, 2, 3)
	return torch.SYRK(f, 1/float64(torch.Shape(f)[2]))
}

// distance is between two pictures' Gram matrices, relative, over the layers.
func distance(t *testing.T, a, b *picture.Picture) (sum float64) {
	network, err := vgg19.Load(nsttest.Model(t), torch.CPU)
	require.NoError(t, err)
	defer network.Close()
	require.NoError(t, torch.Scoped(func() error {
		torch.NoGrad(func() {
			var layers []vgg19.Layer
			for _, name := range []string{"relu1_1", "relu2_1", "relu3_1", "relu4_1"} {
				l, err := vgg19.Lookup(name)
				require.NoError(t, err)
				layers = append(layers, l)
			}
			fa, fb := network.Features(nst.TensorOf(a, torch.CPU, a.Width, a.Height),
				layers), network.Features(nst.TensorOf(b, torch.CPU, b.Width, b.Height), layers)
			for i := range layers {
				ga, gb := gram(fa[i]), gram(fb[i])
				difference, size := torch.SquareSums(torch.Sub(ga, gb)), torch.SquareSums(gb)
				sum += float64(torch.Floats(difference)[0] / torch.Floats(size)[0])
			}
		})
		return nil
	}))
	return sum
}

// contentAndStyles are a content of 128×96 and two styles of 96×96.
func contentAndStyles(t *testing.T) (content, one, other *picture.Picture) {
	content = resized(t, open(t, nsttest.Demo(t, "content.png")), 128, 96)
	one = resized(t, open(t, nsttest.Reference(t, "style-120x96.png")), 96, 96)
	other = resized(t, open(t, nsttest.Demo(t, "style.png")), 96, 96)
	return content, one, other
}

// Two regions of the content take two styles, whether these are regions of one
// picture or pictures of their own, and whatever is compared.
func TestMasks(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	content, one, other := contentAndStyles(t)
	halves := bands(64, 48, 30, 220)
	for name, c := range map[string]struct {
		styles []*picture.Picture
		masks  []*picture.Picture
		loss   nst.StyleLoss
	}{
		"one picture": {[]*picture.Picture{beside(other, one)}, []*picture.Picture{bands(192, 96, 220, 30)},
			nst.GramLoss},
		"two pictures": {[]*picture.Picture{one, other}, []*picture.Picture{bands(8, 8, 30), bands(8, 8, 220)},
			nst.GramLoss},
		"nearest neighbours": {[]*picture.Picture{one, other}, []*picture.Picture{bands(8, 8, 30), bands(8, 8, 220)},
			nst.NeighboursLoss},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := e.Stylize(context.Background(), content, c.styles, nst.Options{
				Size: new(128), StyleSize: new(0), ContentMask: halves, StyleMasks: c.masks, StyleLoss: c.loss,
				Iterations: new(30), LearningRate: new(0.05),
			}, nst.Hooks{})
			require.NoError(t, err)
			left, right := crop(r.Picture, 0, 56), crop(r.Picture, 72, 128)
			assert.Less(t, distance(t, left, one), 0.5*distance(t, left, other), "the left has the one style")
			assert.Less(t, distance(t, right, other), 0.5*distance(t, right, one), "the right has the other")
		})
	}
}

func TestUnusableMasks(t *testing.T) {
	e := engine(t, "cpu")
	content, style := picture.New(128, 96), picture.New(96, 96)
	coloured := picture.New(8, 6)
	coloured.Pixels[3] = 1
	soft := picture.New(128, 96)
	for i := range soft.Pixels {
		soft.Pixels[i] = float32(i%128) / 255
	}
	speck := bands(128, 96, 0)
	for c := range 3 {
		speck.Pixels[c*128*96+500] = 1
	}
	whole := bands(4, 3, 0)
	type masks struct{ content, style *picture.Picture }
	for part, c := range map[string]masks{
		"ContentMask has no region of level 128, which the mask of the style picture has; the content has 0": {
			whole, bands(4, 4, 0, 128)},
		"StyleMasks have no region of level 128, which the content's mask has": {
			bands(4, 3, 0, 128), bands(4, 4, 0)},
		"ContentMask is 4×4, of another aspect than the content picture, 128×96": {bands(4, 4, 0), bands(4, 4, 0)},
		"StyleMasks is 4×3, of another aspect than the style picture, 96×96":     {whole, bands(4, 3, 0)},
		"ContentMask is not grey: its pixel at 3,0 is red 255, green 0, blue 0":  {coloured, bands(4, 4, 0)},
		"ContentMask has 128 grey levels; at most 32 regions will do":            {soft, bands(4, 4, 0)},
		"ContentMask has an empty region: level 255 covers 1 of its pixels, about 1 of the 128×96 that the content": {
			speck, bands(4, 4, 0)},
	} {
		t.Run(part, func(t *testing.T) {
			_, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, nst.Options{
				Size: new(0), StyleSize: new(0), ContentMask: c.content, StyleMasks: []*picture.Picture{c.style},
				Iterations: new(0),
			}, nst.Hooks{})
			require.ErrorIs(t, err, nst.ErrInvalidOption)
			assert.ErrorContains(t, err, part)
		})
	}
	_, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, nst.Options{ContentMask: whole},
		nst.Hooks{})
	assert.ErrorContains(t, err, "give both or neither")
	_, err = e.Stylize(context.Background(), content, []*picture.Picture{style, style},
		nst.Options{ContentMask: whole, StyleMasks: []*picture.Picture{whole}}, nst.Hooks{})
	assert.ErrorContains(t, err, "are 1, for 2 style pictures")
}

// A mask has its picture's aspect, as far as rounded sides have one. A frame of a clip was rounded
// itself, and its masks are of the clip.
func TestMasksHaveTheAspect(t *testing.T) {
	for _, c := range []struct {
		width, height, maskWidth, maskHeight int
		wrap                                 nst.Wrap
		fits                                 bool
	}{
		{451, 300, 451, 300, "", true},
		{451, 300, 45, 30, "", true},
		{142, 1024, 36, 256, "", true}, // narrow
		{1024, 142, 256, 36, "", true},
		{128, 54, 1280, 534, "", true}, // an even height
		{304, 168, 1920, 1080, nst.WrapXY, true},
		{304, 168, 1920, 1080, "", false},
		{451, 300, 300, 451, "", false},
		{451, 300, 300, 300, "", false},
	} {
		sized := func(w, h int) *picture.Picture { return &picture.Picture{Width: w, Height: h} }
		content, style, mask := sized(c.width, c.height), sized(96, 96), sized(c.maskWidth, c.maskHeight)
		for field, o := range map[string]nst.Options{
			"ContentMask":  {ContentMask: mask, StyleMasks: []*picture.Picture{style}},
			"StrengthMask": {StrengthMask: mask},
		} {
			o.Wrap = c.wrap
			if _, _, err := o.ResultSize(content, style); c.fits {
				require.NoError(t, err, "%v", c)
			} else {
				require.ErrorContains(t, err, field+" is "+fmt.Sprintf("%d×%d, of another", c.maskWidth, c.maskHeight))
			}
		}
	}
}

// A mask of one region is no mask.
func TestOneRegionIsTheWhole(t *testing.T) {
	e := engine(t, "cpu")
	o := nst.Options{Size: new(64), Iterations: new(0), Start: nst.StartNoise}
	plain, _ := run(t, e, o)
	o.ContentMask, o.StyleMasks = bands(451, 300, 7), []*picture.Picture{bands(8, 8, 7)}
	masked, _ := run(t, e, o)
	near(t, "total", plain.Costs.Total, masked.Costs.Total, 1e-5)
}

// The result has the content's chroma, or the style is seen in the content's
// colours.
func TestColor(t *testing.T) {
	e := engine(t, "cpu")
	content, style := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png"))
	final := func(c nst.Color, style *picture.Picture) *picture.Picture {
		var last *picture.Picture
		r, err := e.Stylize(context.Background(), content, []*picture.Picture{style},
			nst.Options{Size: new(64), Iterations: new(5), StyleMargin: new(0.0),
				Color: c}, nst.Hooks{Progress: func(p nst.Progress) { last = pictureAt(t, p) }})
		require.NoError(t, err)
		assert.Equal(t, last, r.Picture, "what is shown at the end is the result")
		return r.Picture
	}
	plain := final(nst.ColorStyle, style)
	at := resized(t, content, 64, 43)
	assert.Equal(t, picture.Recolor(plain, at), final(nst.ColorContent, style))
	assert.Equal(t, final(nst.ColorStyle, picture.MatchColors(style, content)), final(nst.ColorMatch, style))
}

// The targets of a style are computed once, until something that they depend on
// differs.
func TestStyleTargetsAreRemembered(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	o := nst.Options{Size: new(64), Iterations: new(0)}
	for i, c := range []struct {
		change func()
		more   int
	}{
		{func() {}, 1}, {func() {}, 0},
		{func() { o.StyleSize = new(48) }, 1}, {func() { o.StyleSize = nil }, 0},
		{func() { o.StyleLoss = nst.MomentsLoss }, 1}, {func() { o.Pooling = vgg19.AveragePooling }, 1},
		{func() { o.Padding = vgg19.ReplicatePadding }, 1}, {func() { o.StyleWeight = new(3.0) }, 0},
		{func() { o.StyleLayers = []nst.LayerWeight{{Layer: "relu2_2"}} }, 1}, {func() { o.Precision = nst.Double }, 1},
		{func() { o.Preset = nst.Classic }, 1}, // plain average pooling
	} {
		before := nst.StyleCacheMisses(e)
		c.change()
		first, _ := run(t, e, o)
		assert.Equal(t, c.more, nst.StyleCacheMisses(e)-before, "case %d", i)
		again, _ := run(t, e, o)
		assert.Equal(t, first.Costs, again.Costs)
	}
	for i := range 80 { // more than are kept
		style := picture.New(16+i, 16)
		_, err := e.Stylize(context.Background(), picture.New(16, 16), []*picture.Picture{style},
			nst.Options{Size: new(0), StyleLayers: []nst.LayerWeight{{Layer: "relu1_1"}},
				Iterations: new(0)}, nst.Hooks{})
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, torch.Live(), int64(64*5))
}

// record is the costs of a run, before each step and at the end.
func record(t *testing.T, e *nst.Engine, o nst.Options, stop func(nst.Progress) bool) (all []nst.Progress,
	at *nst.Checkpoint, r *nst.Result) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := e.Stylize(ctx, open(t, nsttest.Demo(t, "content.png")),
		[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))}, o, nst.Hooks{Progress: func(p nst.Progress) {
			if p.Last && p.Iteration < p.Iterations {
				c, err := p.State.Checkpoint()
				assert.NoError(t, err)
				var file bytes.Buffer
				n, err := c.WriteTo(&file)
				assert.NoError(t, err)
				assert.Equal(t, int64(file.Len()), n)
				at, err = nst.ReadCheckpoint(&file)
				if assert.NoError(t, err) {
					assert.Equal(t, p.Iteration, at.Iteration())
				}
				return
			}
			if stop != nil && stop(p) {
				cancel()
			}
			p.State, p.Seconds = nil, 0
			all = append(all, p)
		}})
	if at == nil {
		require.NoError(t, err)
	} else {
		require.ErrorIs(t, err, context.Canceled)
	}
	return all, at, r
}

// A run that is interrupted, at any iteration of any scale, and goes on has the
// costs and the picture of one that was not, to the last bit.
func TestResume(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "cpu")
	for _, c := range []struct {
		precision     nst.Precision
		loss          nst.StyleLoss
		interruptions []int // scales have 7, 6 and 5 iterations
	}{
		{nst.Exact, nst.GramLoss, []int{0, 3, 6, 7, 8, 13, 16}},
		{nst.Double, nst.GramLoss, []int{8}},
		{nst.Exact, nst.NeighboursLoss, []int{3, 7}},
		{nst.Exact, nst.SlicedLoss, []int{8}},
	} {
		for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
			t.Run(fmt.Sprint(optimizer, " ", c.precision, " ", c.loss), func(t *testing.T) {
				o := nst.Options{Size: new(64), Scales: "32,48", Iterations: new(18), Optimizer: optimizer,
					Precision: c.precision, StyleLoss: c.loss, StyleSize: new(64), Start: nst.StartNoise}
				want, _, whole := record(t, e, o, nil)
				require.Len(t, want, 19)
				for _, at := range c.interruptions {
					first, checkpoint, r := record(t, e, o, func(p nst.Progress) bool { return p.Iteration == at })
					require.NotNil(t, checkpoint)
					assert.Equal(t, [2]int{64, 43}, [2]int{r.Picture.Width, r.Picture.Height}, "whatever the scale")
					o := o
					o.Resume = checkpoint
					rest, _, resumed := record(t, e, o, nil)
					require.Equal(t, at+1, rest[0].Iteration)
					assert.Equal(t, want, append(first, rest...))
					assert.Equal(t, whole.Picture, resumed.Picture)
					assert.Equal(t, whole.Costs, resumed.Costs)
					assert.Equal(t, 18, resumed.Iterations)
				}
			})
		}
	}
}

// A checkpoint of something else is refused by name, a damaged one in any case.
func TestUnusableCheckpoints(t *testing.T) {
	e := engine(t, "cpu")
	o := nst.Options{Size: new(32), Iterations: new(6)}
	_, checkpoint, _ := record(t, e, o, func(p nst.Progress) bool { return p.Iteration == 2 })
	content, style := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png"))
	for part, c := range map[string]struct {
		options func(*nst.Options)
		content *picture.Picture
		styles  []*picture.Picture
	}{
		"was made with style-weight 300, not 50": {func(o *nst.Options) { o.StyleWeight = new(50.0) },
			content, []*picture.Picture{style}},
		"with size 32, not 48; style-size 32, not 48": {func(o *nst.Options) { o.Size = new(48) }, content,
			[]*picture.Picture{style}},
		"learning-rate 1, not 0.02; optimizer lbfgs, not adam": {func(o *nst.Options) { o.Optimizer = nst.Adam },
			content, []*picture.Picture{style}},
		"another content picture": {func(*nst.Options) {}, style,
			[]*picture.Picture{style}},
		"another style picture": {func(*nst.Options) {}, content,
			[]*picture.Picture{content}},
		"another content mask": {func(o *nst.Options) {
			o.ContentMask, o.StyleMasks = bands(451, 300, 1), []*picture.Picture{bands(2, 2, 1)}
		}, content, []*picture.Picture{style}},
	} {
		t.Run(part, func(t *testing.T) {
			o := o
			o.Resume = checkpoint
			c.options(&o)
			_, err := e.Stylize(context.Background(), c.content, c.styles, o, nst.Hooks{})
			require.ErrorIs(t, err, nst.ErrCheckpoint)
			assert.ErrorContains(t, err, part)
		})
	}
	small, err := nst.Open(context.Background(), "vgg19/testdata/small.pt", nst.OpenOptions{Device: "cpu"})
	require.NoError(t, err)
	defer small.Close()
	o.Resume = checkpoint
	_, err = small.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
	assert.ErrorContains(t, err, "another network")

	var file bytes.Buffer
	_, err = checkpoint.WriteTo(&file)
	require.NoError(t, err)
	whole := file.Bytes()
	for n := 0; n < len(whole); n += 1 + len(whole)/97 {
		_, err := nst.ReadCheckpoint(bytes.NewReader(whole[:n]))
		assert.ErrorIs(t, err, nst.ErrCheckpoint, "cut at %d of %d", n, len(whole))
		changed := bytes.Clone(whole)
		changed[n] ^= 4
		_, err = nst.ReadCheckpoint(bytes.NewReader(changed))
		assert.ErrorIs(t, err, nst.ErrCheckpoint, "byte %d changed", n)
	}
}

// From coarse to fine the total at full size gets lower than at full size alone
// with as much work.
func TestScalesPay(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	work := 0.0
	r, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
		[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
		nst.Options{Size: new(160), Iterations: new(60)}, nst.Hooks{Progress: func(p nst.Progress) {
			if !p.Last {
				work += math.Pow(float64(p.Scale)/160, 2)
			} else {
				assert.Equal(t, 1.0, p.Fraction)
			}
		}})
	require.NoError(t, err)
	alone, err := e.Stylize(context.Background(), open(t, nsttest.Demo(t, "content.png")),
		[]*picture.Picture{open(t, nsttest.Demo(t, "style.png"))},
		nst.Options{Size: new(160), Scales: nst.ScalesOff, Iterations: new(int(math.Ceil(work)))}, nst.Hooks{})
	require.NoError(t, err)
	assert.Less(t, r.Costs.Total, alone.Costs.Total)
	t.Logf("from coarse to fine %.3f; %.0f iterations at full size alone %.3f", r.Costs.Total, math.Ceil(work),
		alone.Costs.Total)
}

// Pictures that are made together have the results of those made alone: with
// either optimiser, through scales, the totals within 1e-5 at every iteration.
func TestTogetherAsAlone(t *testing.T) {
	nsttest.Long(t)
	e := slim(t, "cpu")
	demo := func(name string) *picture.Picture { return open(t, nsttest.Demo(t, name)) }
	content, style := demo("content.png"), demo("style.png")
	flipped := picture.New(content.Width, content.Height)
	for i := range content.Pixels {
		flipped.Pixels[i] = 1 - content.Pixels[i]
	}
	other := picture.New(70, 90)
	for i := range other.Pixels {
		other.Pixels[i] = float32(i%11) / 11
	}
	inputs := []nst.Input{{Content: content, Styles: []*picture.Picture{style}},
		{Content: flipped, Styles: []*picture.Picture{other, style}}, {Content: content,
			Styles: []*picture.Picture{other}}}
	for _, optimizer := range []nst.Optimizer{nst.Adam, nst.LBFGS} {
		for _, loss := range []nst.StyleLoss{nst.GramLoss, nst.MomentsLoss, nst.NeighboursLoss} {
			t.Run(fmt.Sprint(optimizer, " ", loss), func(t *testing.T) {
				o := nst.Options{Size: new(64), Scales: "48", Iterations: new(8), Optimizer: optimizer, StyleLoss: loss,
					TVWeight: new(1.0), Color: nst.ColorContent}
				together := make([][]float64, len(inputs))
				results, err := e.StylizeBatch(context.Background(), inputs, o,
					nst.Hooks{Progress: func(p nst.Progress) {
						together[p.Input] = append(together[p.Input], p.Total)
						_, err := p.State.Checkpoint()
						assert.ErrorIs(t, err, nst.ErrCheckpoint)
					}})
				require.NoError(t, err)
				require.Len(t, results, len(inputs))
				for i, in := range inputs {
					var alone []float64
					r, err := e.Stylize(context.Background(), in.Content, in.Styles, o,
						nst.Hooks{Progress: func(p nst.Progress) { alone = append(alone, p.Total) }})
					require.NoError(t, err)
					require.Len(t, together[i], len(alone))
					for k := range alone {
						near(t, fmt.Sprintf("picture %d, iteration %d", i, k), alone[k], together[i][k], 1e-5)
					}
					near(t, "result", r.Costs.Total, results[i].Costs.Total, 1e-5)
				}
			})
		}
	}
	_, err := e.StylizeBatch(context.Background(), []nst.Input{inputs[0], {Content: other, Styles: inputs[0].Styles}},
		nst.Options{Size: new(64)}, nst.Hooks{})
	assert.ErrorIs(t, err, nst.ErrInvalidOption, "of two sizes")
}

// A picture of one colour, which comes round, is all alike; a weight of 0 is one for any loss.
func TestNothingToCompare(t *testing.T) {
	e := slim(t, "cpu")
	white, style := picture.New(48, 48), open(t, nsttest.Demo(t, "style.png"))
	for i := range white.Pixels {
		white.Pixels[i] = 1
	}
	for name, o := range map[string]nst.Options{
		"similarity":          {ContentLoss: nst.SimilarityLoss, Wrap: nst.WrapXY},
		"nearest neighbours":  {StyleLoss: nst.NeighboursLoss, Wrap: nst.WrapXY},
		"a style weight of 0": {StyleLoss: nst.NeighboursLoss, StyleWeight: new(0.0)},
		"style layers of 0": {StyleLoss: nst.NeighboursLoss, StyleLayers: []nst.LayerWeight{{Layer: "relu1_1",
			Weight: new(0.0)}}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Size, o.Iterations = new(48), new(6)
			r, err := e.Stylize(context.Background(), white, []*picture.Picture{style, white}, o, nst.Hooks{})
			require.NoError(t, err)
			assert.False(t, math.IsNaN(r.Costs.Total))
		})
	}
	for _, o := range []nst.Options{{Preset: nst.Classic, StyleLoss: nst.NeighboursLoss},
		{Preset: nst.Gatys, StyleLoss: nst.SlicedLoss}, {Preset: nst.Classic, ContentLoss: nst.SimilarityLoss},
		{Preset: nst.Classic, StyleLoss: nst.WassersteinLoss, Strength: new(0.5)}} {
		assert.ErrorContains(t, o.Validate(), "Weight is missing: the preset", "%+v", o)
	}
	assert.NoError(t, nst.Options{Preset: nst.Gatys, StyleLoss: nst.NeighboursLoss, StyleWeight: new(1e4)}.Validate())
	_, err := e.Stylize(context.Background(), white, []*picture.Picture{style}, nst.Options{
		StyleLoss: nst.NeighboursLoss, StyleFor: [][]string{{"relu1_1"}}}, nst.Hooks{})
	assert.ErrorContains(t, err, "all layers")
	clear := *white
	clear.Alpha = make([]float32, 48*48)
	clear.Alpha[0] = 1
	_, err = e.Stylize(context.Background(), &clear, []*picture.Picture{style}, nst.Options{
		ContentLoss: nst.SimilarityLoss}, nst.Hooks{})
	assert.ErrorContains(t, err, "transparent")
}

// A region that is too small for a layer has what the others have.
func TestNarrowMasks(t *testing.T) {
	e := slim(t, "cpu")
	content, style := nst.NoiseOf(1, 127, 64), nst.NoiseOf(2, 127, 64)
	mask := picture.New(127, 64)
	for i := range mask.Pixels {
		if i%127 >= 120 {
			mask.Pixels[i] = 1
		}
	}
	for _, loss := range []nst.StyleLoss{nst.GramLoss, nst.NeighboursLoss} {
		r, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, nst.Options{Size: new(0),
			Iterations: new(3), StyleLoss: loss, ContentMask: mask, StyleMasks: []*picture.Picture{mask}}, nst.Hooks{})
		require.NoError(t, err, loss)
		assert.False(t, math.IsNaN(r.Costs.Total))
	}
}

// Transfers of colour and of lightness: the one keeps the content's lines and has the
// style's colours, the other the content's chroma.
func TestTransfers(t *testing.T) {
	e := slim(t, "cpu")
	content, style := open(t, nsttest.Demo(t, "content.png")), open(t, nsttest.Demo(t, "style.png"))
	o := nst.Options{Size: new(64), Transfer: nst.TransferColor, StyleMargin: new(0.0)}
	var ends []nst.Progress
	coloured, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o,
		nst.Hooks{Progress: func(p nst.Progress) { ends = append(ends, p) }})
	require.NoError(t, err)
	require.Len(t, ends, 1)
	assert.True(t, ends[0].Last)
	assert.Equal(t, 0, coloured.Iterations)
	at := resized(t, content, coloured.Picture.Width, coloured.Picture.Height)
	assert.Equal(t, picture.MatchColors(at, style).Pixels, coloured.Picture.Pixels)
	alone, err := nst.TransferColors(context.Background(), content, []*picture.Picture{style, content}, o)
	require.NoError(t, err)
	assert.Less(t, nsttest.Difference(alone.Picture.Pixels, at.Pixels),
		nsttest.Difference(coloured.Picture.Pixels, at.Pixels),
		"half of the colours are the content's own")

	o = nst.Options{Size: new(64), Transfer: nst.TransferLuminance, Iterations: new(8)}
	grey, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
	require.NoError(t, err)
	same := picture.Recolor(grey.Picture, at)
	assert.Less(t, nsttest.Difference(grey.Picture.Pixels, same.Pixels), 0.02, "the content's chroma, but for rounding")
	o.Transfer = nst.TransferStyle
	full, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
	require.NoError(t, err)
	assert.Greater(t, nsttest.Difference(full.Picture.Pixels, grey.Picture.Pixels), 0.02)

	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = nst.TransferColors(gone, content, []*picture.Picture{style}, nst.Options{Transfer: nst.TransferColor})
	assert.ErrorIs(t, err, context.Canceled)
	dot, err := nst.TransferColors(context.Background(), content, []*picture.Picture{picture.New(1, 1)},
		nst.Options{Size: new(20), Transfer: nst.TransferColor})
	require.NoError(t, err, "without a network there is no smallest size")
	assert.Equal(t, 20, dot.Picture.Width)
	_, err = nst.TransferColors(context.Background(), content, []*picture.Picture{style},
		nst.Options{Transfer: nst.TransferColor, Color: nst.ColorMatch})
	assert.ErrorContains(t, err, "Color is match, and Transfer color")
}

// A soft mask blends the styles between two regions; the same mask without MaskSoft has
// regions that no style has.
func TestSoftMasks(t *testing.T) {
	nsttest.Long(t)
	e := engine(t, "cpu")
	content, one, other := contentAndStyles(t)
	o := nst.Options{
		Size: new(128), StyleSize: new(0), Iterations: new(40), MaskSoft: true,
		ContentMask: bands(64, 48, 30, 80, 130, 180, 230),
		StyleMasks:  []*picture.Picture{bands(8, 8, 30), bands(8, 8, 230)},
	}
	styles := []*picture.Picture{one, other}
	r, err := e.Stylize(context.Background(), content, styles, o, nst.Hooks{})
	require.NoError(t, err)
	// How much nearer a part is to the one style than to the other.
	lean := func(from, to int) float64 {
		part := crop(r.Picture, from, to)
		return math.Log(distance(t, part, other) / distance(t, part, one))
	}
	left, middle, right := lean(0, 32), lean(48, 80), lean(96, 128)
	t.Logf("left %.2f, middle %.2f, right %.2f", left, middle, right)
	assert.Greater(t, left, middle)
	assert.Greater(t, middle, right)
	o.MaskSoft = false
	_, err = e.Stylize(context.Background(), content, styles, o, nst.Hooks{})
	assert.ErrorContains(t, err, "StyleMasks have no region of level 80")
}

// Where the mask of strength is black the picture stays the content.
func TestStrengthMask(t *testing.T) {
	e := slim(t, "cpu")
	content := resized(t, open(t, nsttest.Demo(t, "content.png")), 96, 64)
	style := open(t, nsttest.Demo(t, "style.png"))
	o := nst.Options{Size: new(96), Iterations: new(12), StrengthMask: bands(60, 40, 0, 255)}
	change := func(o nst.Options) (left, right float64) {
		r, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
		require.NoError(t, err)
		at := func(from, to int) float64 {
			return nsttest.Difference(crop(r.Picture, from, to).Pixels, crop(content, from, to).Pixels)
		}
		return at(0, 32), at(64, 96)
	}
	left, right := change(o)
	t.Logf("changed: left %.4f, right %.4f", left, right)
	assert.Less(t, 5*left, right)
	o.StrengthMask = bands(60, 40, 255)
	plainLeft, plainRight := change(o)
	o.StrengthMask = nil
	wantLeft, wantRight := change(o)
	assert.InEpsilon(t, wantLeft, plainLeft, 0.05, "white is all of it")
	assert.InEpsilon(t, wantRight, plainRight, 0.05)

	for part, mask := range map[string]*picture.Picture{
		"is all black": bands(60, 40, 0), "of another aspect": bands(40, 60, 255), "is not grey": content} {
		o.StrengthMask = mask
		_, err := e.Stylize(context.Background(), content, []*picture.Picture{style}, o, nst.Hooks{})
		assert.ErrorContains(t, err, "StrengthMask")
		assert.ErrorContains(t, err, part)
	}
}

// Turned by 90°, stripes have the other direction; by 0° they are what they were.
func TestStyleRotate(t *testing.T) {
	e := slim(t, "cpu")
	stripes := picture.New(64, 64)
	for i := range stripes.Pixels {
		stripes.Pixels[i] = float32(i / 64 / 4 % 2)
	}
	cost := func(angles ...float64) float64 {
		r, err := e.Stylize(context.Background(), stripes.Rotated(90), []*picture.Picture{stripes}, nst.Options{
			Size: new(64), ContentWeight: new(0.0), Iterations: new(0), StyleRotate: angles,
			StyleMargin: new(0.0),
		}, nst.Hooks{})
		require.NoError(t, err)
		return r.Costs.Total
	}
	plain, zero, quarter, both := cost(), cost(0), cost(90), cost(0, 90)
	t.Logf("as it is %.4g, by 90° %.4g, both %.4g", plain, quarter, both)
	assert.Equal(t, plain, zero)
	assert.Less(t, quarter, 0.01*plain)
	assert.Less(t, quarter, both)
	assert.Less(t, both, plain)
}

// A layer's target is of the styles that are for it.
func TestStyleFor(t *testing.T) {
	e := slim(t, "cpu")
	content := nst.NoiseOf(1, 48, 48)
	one, other := open(t, nsttest.Demo(t, "style.png")), open(t, nsttest.Demo(t, "content.png"))
	costs := func(layers [][]string, styles ...*picture.Picture) map[string]float64 {
		r, err := e.Stylize(context.Background(), content, styles, nst.Options{Size: new(48), StyleSize: new(64),
			Iterations: new(0), StyleFor: layers}, nst.Hooks{})
		require.NoError(t, err)
		return r.Costs.Style
	}
	first, second := costs(nil, one), costs(nil, other)
	split := costs([][]string{{"relu1_1", "relu2_1"}, {"relu3_1", "relu4_1"}}, one, other)
	for _, name := range []string{"relu1_1", "relu2_1"} {
		assert.InEpsilon(t, first[name], split[name], 1e-5, name)
	}
	for _, name := range []string{"relu3_1", "relu4_1"} {
		assert.InEpsilon(t, second[name], split[name], 1e-5, name)
	}
	both := costs([][]string{{}, {"relu4_1"}}, one, other)
	assert.InEpsilon(t, first["relu3_1"], both["relu3_1"], 1e-5, "an empty list is all")
	assert.NotEqual(t, first["relu4_1"], both["relu4_1"])
	for part, layers := range map[string][][]string{
		"is of 1 style pictures, and there are 2": {{}},
		"names relu5_1 for the style picture 2":   {{}, {"relu5_1"}},
		"leaves no style for relu2_1":             {{"relu1_1"}, {"relu3_1", "relu4_1"}},
	} {
		_, err := e.Stylize(context.Background(), content, []*picture.Picture{one, other},
			nst.Options{StyleFor: layers}, nst.Hooks{})
		assert.ErrorContains(t, err, part)
	}
}
