package nst

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
)

// settings are Options with every choice made: no pointer is nil, but those to
// pictures and the checkpoint.
type settings struct {
	Options
	spec       objective.Spec // with α of the result's size, and without the network's channels
	descent    descent.Settings
	iterations int
	scales     []int // of the list; empty: Scales says how
}

// layers are those of all terms, also of those that weigh nothing.
func (s *settings) layers() []vgg19.Layer {
	var out []vgg19.Layer
	for _, l := range slices.Concat(s.spec.Content, s.spec.Style) {
		out = append(out, l.Layer)
	}
	return out
}

// deepest is as far as the network may have to run.
func (s *settings) deepest() vgg19.Layer { return vgg19.Deepest(s.layers()) }

// styleLosses are the objective's, with the β that Balanced has for each: it keeps the content
// well and has most of the loss's style (nst/README.md has the fronts). There is none of
// NeighboursLoss, which is Spec.Neighbours.
var styleLosses = map[StyleLoss]struct {
	loss objective.Loss
	beta float64
}{
	GramLoss: {objective.Gram{}, 300}, MomentsLoss: {objective.Moments{}, 40},
	WassersteinLoss: {objective.Wasserstein{}, 60}, SlicedLoss: {objective.Sliced{}, 1000}, NeighboursLoss: {nil, 8},
}

// contentLosses are the objective's, with Balanced's α. FeatureLoss is the objective's own.
var contentLosses = map[ContentLoss]struct {
	loss  objective.Loss
	alpha float64
}{FeatureLoss: {nil, 1}, SimilarityLoss: {objective.SelfSimilarity{}, 10}}

// methods are the descent's.
var methods = map[Optimizer]descent.Method{Adam: descent.Adam, LBFGS: descent.LBFGS}

// pooling is the network's: Balanced keeps average-pooled activations about as
// large as the network was trained with.
func (s *settings) pooling() vgg19.Pooling {
	if s.Preset == Balanced && s.Pooling == vgg19.AveragePooling {
		return vgg19.RescaledAveragePooling
	}
	return s.Pooling
}

func (o Options) withDefaults() (*settings, error) {
	s := &settings{Options: o, descent: descent.Settings{Beta2: 0.999}}
	rates, optimizer, scales, margin := map[Optimizer]float64{LBFGS: 1}, Adam, ScalesOff, 0.0
	styleLayers := []string{"relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"}
	s.Preset = either(s.Preset, Balanced)
	s.StyleLoss, s.ContentLoss = either(s.StyleLoss, GramLoss), either(s.ContentLoss, FeatureLoss)
	style, content := styleLosses[s.StyleLoss], contentLosses[s.ContentLoss]
	switch s.Preset {
	case Balanced:
		// By Gram matrices each of the four style layers weighs 75 against the content's 1.
		// With relu5_1 among them what the paintings show is copied: eyes, where there is a cloud.
		s.spec.Normalisation, s.spec.Alpha, s.spec.Beta = objective.RelativeToTarget, content.alpha, style.beta
		styleLayers = styleLayers[:4]
		s.iterations, rates[Adam] = 200, 0.02
		optimizer = LBFGS
		// Each scale begins with large gradients, which β₂ = 0.999 would
		// remember, making steps small, until the scale is over.
		s.descent.Beta2 = 0.99
		scales, margin = ScalesAuto, 0.02
	case Classic:
		s.spec.Alpha, s.spec.Beta = 10, 40
		s.iterations, rates[Adam] = 500, 2.0/255
	case Gatys:
		// λ is 1/5 on each of five layers, so that β·λ is 1.
		s.spec.Normalisation, s.spec.Alpha, s.spec.Beta = objective.MeanSquare, 1, 5
		s.iterations, rates[Adam] = 500, 0.02
		optimizer = LBFGS
	default:
		return nil, unknown("Preset", s.Preset, Balanced, Classic, Gatys)
	}
	s.Optimizer = either(s.Optimizer, optimizer)
	s.Scales = either(s.Scales, scales)
	if s.StyleMargin == nil {
		s.StyleMargin = &margin
	}
	s.Start = either(s.Start, StartContent)
	s.Pooling = either(s.Pooling, vgg19.MaxPooling)
	s.Padding = either(s.Padding, vgg19.ZeroPadding)
	s.Autotune = either(s.Autotune, AutotuneAuto)
	s.Transfer = either(s.Transfer, TransferStyle)
	s.Wrap = either(s.Wrap, WrapOff)
	s.Color = either(s.Color, ColorStyle)
	s.Precision = either(s.Precision, Fast)
	s.spec.StyleLoss, s.spec.ContentLoss, s.spec.Neighbours = style.loss, content.loss, s.StyleLoss == NeighboursLoss
	s.spec.Wrap, s.descent.Wrap = s.Wrap.Directions(), s.Wrap.Directions()
	s.descent.Method, s.descent.Rate = methods[s.Optimizer], rates[s.Optimizer]
	var err error
	if s.spec.Content, err = layerWeights("ContentLayers", &s.ContentLayers, "relu4_2"); err != nil {
		return nil, err
	}
	if s.spec.Style, err = layerWeights("StyleLayers", &s.StyleLayers, styleLayers...); err != nil {
		return nil, err
	}
	for _, check := range []func() error{
		func() error { return known("Optimizer", s.Optimizer, Adam, LBFGS) },
		func() error {
			return known("Start", s.Start, StartContent, StartNoise, StartGray, StartFaint, StartPicture)
		},
		func() error { return known("StyleLoss", s.StyleLoss, slices.Sorted(maps.Keys(styleLosses))...) },
		func() error { return known("ContentLoss", s.ContentLoss, slices.Sorted(maps.Keys(contentLosses))...) },
		func() error { return known("Pooling", s.Pooling, vgg19.MaxPooling, vgg19.AveragePooling) },
		func() error { return known("Padding", s.Padding, vgg19.ZeroPadding, vgg19.ReplicatePadding) },
		func() error {
			return known("Transfer", s.Transfer, TransferStyle, TransferLuminance, TransferColor)
		},
		s.checkTransfer,
		func() error { return known("Wrap", s.Wrap, WrapOff, WrapX, WrapY, WrapXY) },
		func() error { return known("Color", s.Color, ColorStyle, ColorContent, ColorMatch) },
		func() error { return known("Alpha", either(s.Alpha, AlphaKeep), AlphaKeep, AlphaWhite) },
		func() error { return known("Precision", s.Precision, Fast, Exact, TF32, BF16, Double) },
		func() error { return known("Autotune", s.Autotune, AutotuneAuto, AutotuneOn, AutotuneOff) },
		s.checkTile, s.checkWeights, s.checkStrength, s.checkNumbers, s.checkStyleWeights, s.checkSizes, s.checkCut,
		s.checkScales, s.checkPictures,
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkTransfer says whether what is transferred goes together with whose colours the
// result has.
func (s *settings) checkTransfer() error {
	if s.Transfer != TransferStyle && s.Color != ColorStyle {
		return invalid("Color", "is %s, and Transfer %s: that settles the colours; leave one of them out", s.Color,
			s.Transfer)
	}
	if s.Transfer == TransferColor && (s.ContentMask != nil || s.StrengthMask != nil || len(s.StyleMasks) > 0) {
		return invalid("Transfer", "%s is for the whole picture: leave the masks out", s.Transfer)
	}
	return nil
}

func either[T ~string](given, otherwise T) T {
	if given == "" {
		return otherwise
	}
	return given
}

// known says whether a value is one of the choices.
func known[T ~string](field string, given T, choices ...T) error {
	if slices.Contains(choices, given) {
		return nil
	}
	return unknown(field, given, choices...)
}

func unknown[T ~string](field string, given T, choices ...T) error {
	var names []string
	for _, c := range choices {
		names = append(names, string(c))
	}
	last := len(names) - 1
	return invalid(field, "%q is unknown: known are %s and %s", given, strings.Join(names[:last], ", "), names[last])
}

// checkWeights says whether there is a weight for each loss: the presets but Balanced have
// those of Gram matrices, and of what is measured like them, alone.
func (s *settings) checkWeights() error {
	if s.Preset == Balanced {
		return nil
	}
	if s.StyleWeight == nil && s.StyleLoss != GramLoss && s.StyleLoss != MomentsLoss {
		return invalid("StyleWeight", "is missing: the preset %s has none for the style loss %s; give one, or take "+
			"the preset %s", s.Preset, s.StyleLoss, Balanced)
	}
	if s.ContentWeight == nil && s.ContentLoss != FeatureLoss {
		return invalid("ContentWeight", "is missing: the preset %s has none for the content loss %s; give one, or "+
			"take the preset %s", s.Preset, s.ContentLoss, Balanced)
	}
	return nil
}

// checkStrength makes the strength the style weight that it stands for.
func (s *settings) checkStrength() error {
	if s.Strength == nil {
		return nil
	}
	if v := *s.Strength; !(v >= 0 && v <= 1) {
		return invalid("Strength", "is %g; 0 to 1 will do", v)
	}
	if s.StyleWeight != nil {
		return invalid("Strength", "and StyleWeight are two ways to say one thing: leave one of them out")
	}
	s.StyleWeight, s.Strength = new(s.spec.Beta*math.Pow(strengthRange, 2**s.Strength-1)), nil
	return nil
}

// temporalWeights are the presets' δ. Balanced's keeps the style within 1 to 7 % of the first
// frame's (nst/video/README.md); the others' are in proportion to their totals.
var temporalWeights = map[Preset]float64{Balanced: 200, Classic: 5e11, Gatys: 1e9}

// strengthRange is what Strength's ends multiply and divide the preset's style weight by.
const strengthRange = 10

// checkNumbers gives the preset's numbers way to those of the options.
func (s *settings) checkNumbers() error {
	for _, n := range []struct {
		field string
		from  **float64
		to    *float64
		zero  bool
	}{
		{"ContentWeight", &s.ContentWeight, &s.spec.Alpha, true},
		{"StyleWeight", &s.StyleWeight, &s.spec.Beta, true},
		{"TVWeight", &s.TVWeight, &s.spec.Gamma, true},
		{"LearningRate", &s.LearningRate, &s.descent.Rate, false},
	} {
		if *n.from != nil {
			*n.to = **n.from
		}
		*n.from = n.to
		if err := checkNumber(n.field, *n.to, n.zero); err != nil {
			return err
		}
	}
	if s.Previous != nil {
		if s.TemporalWeight == nil {
			s.TemporalWeight = new(temporalWeights[s.Preset])
		}
		s.spec.Delta = *s.TemporalWeight
	}
	if s.TemporalWeight != nil {
		if err := checkNumber("TemporalWeight", *s.TemporalWeight, true); err != nil {
			return err
		}
	}
	if s.spec.Neighbours && len(s.spec.StyleLayers()) == 0 { // of any loss nothing counts
		s.spec.Neighbours, s.spec.StyleLoss = false, objective.Gram{}
	}
	if len(s.spec.Layers()) == 0 {
		return invalid("ContentWeight", "and StyleWeight leave nothing to optimise: every weight is 0; give one "+
			"that is not")
	}
	if s.Iterations != nil {
		s.iterations = *s.Iterations
	}
	s.Iterations = &s.iterations
	if s.iterations < 0 {
		return invalid("Iterations", "is %d; 0 or more will do", s.iterations)
	}
	return nil
}

// maxSide is the longest side of a picture.
const maxSide = picture.MaxSide

// checkStyleWeights makes the style pictures' weights' sum 1.
func (s *settings) checkStyleWeights() error {
	sum, largest := 0.0, 0.0
	for _, w := range s.StyleWeights {
		if err := checkNumber("StyleWeights", w, true); err != nil {
			return err
		}
		sum, largest = sum+w, max(largest, w)
	}
	if len(s.StyleWeights) > 0 && sum == 0 {
		return invalid("StyleWeights", "are all 0; give one that is not")
	}
	if math.IsInf(sum, 0) {
		return invalid("StyleWeights", "are as large as %g: their sum is no number", largest)
	}
	shares := make([]float64, len(s.StyleWeights))
	for i, w := range s.StyleWeights {
		shares[i] = w / sum
	}
	s.StyleWeights = shares
	return nil
}

// isFor says whether a style picture is for a style layer.
func (s *settings) isFor(i int, l vgg19.Layer) bool {
	return len(s.StyleFor) == 0 || len(s.StyleFor[i]) == 0 || slices.Contains(s.StyleFor[i], l.Name)
}

// checkStyleFor says whether StyleFor goes together with n style pictures.
func (s *settings) checkStyleFor(n int) error {
	if len(s.StyleFor) == 0 {
		return nil
	}
	if s.spec.Neighbours {
		return invalid("StyleFor", "is not for the style loss %s, which looks at all layers at once", s.StyleLoss)
	}
	if len(s.StyleFor) != n {
		return invalid("StyleFor", "is of %d style pictures, and there are %d", len(s.StyleFor), n)
	}
	known := func(name string) bool {
		return slices.ContainsFunc(s.spec.Style, func(l objective.WeightedLayer) bool { return l.Layer.Name == name })
	}
	for i, names := range s.StyleFor {
		for _, name := range names {
			if !known(name) {
				return invalid("StyleFor", "names %s for the %s, which is none of the style layers", name,
					styleName(i, n))
			}
		}
	}
	for _, l := range s.spec.StyleLayers() {
		styled := false
		for i := range n {
			styled = styled || s.isFor(i, l) && s.share(i, n) > 0
		}
		if !styled {
			return invalid("StyleFor", "leaves no style for %s", l.Name)
		}
	}
	return nil
}

// share is a style picture's part of the blend of n.
func (s *settings) share(i, n int) float64 {
	if len(s.StyleWeights) > 0 {
		return s.StyleWeights[i]
	}
	return 1 / float64(n)
}

// checkSizes settles how large the pictures will be.
func (s *settings) checkSizes() error {
	if s.Size == nil {
		s.Size = new(DefaultSize)
	}
	if s.StyleSize == nil {
		s.StyleSize = s.Size
	}
	for _, side := range []struct {
		field string
		size  int
	}{{"Size", *s.Size}, {"StyleSize", *s.StyleSize}} {
		if err := checkSide(side.field, side.size, 0); err != nil {
			return err
		}
	}
	if s.StyleScale == nil {
		s.StyleScale = new(1.0)
	}
	if err := checkNumber("StyleScale", *s.StyleScale, false); err != nil {
		return err
	}
	if size := float64(*s.StyleSize) * *s.StyleScale; size > maxSide {
		return invalid("StyleScale", "makes the style size %.0f; at most %d pixels will do", size, maxSide)
	}
	return nil
}

// checkCut checks what is used of the style pictures.
func (s *settings) checkCut() error {
	for _, angle := range s.StyleRotate {
		if math.IsNaN(angle) || math.IsInf(angle, 0) {
			return invalid("StyleRotate", "has %v; an angle in degrees will do", angle)
		}
	}
	if n := len(s.StyleRotate); n > MaxRotations {
		return invalid("StyleRotate", "has %d angles; at most %d will do", n, MaxRotations)
	} else if n > 0 && len(s.StyleMasks) > 0 {
		return invalid("StyleRotate", "is not for styles with masks")
	}
	if m := *s.StyleMargin; !(m >= 0 && m <= MaxStyleMargin) {
		return invalid("StyleMargin", "is %g; 0 to %g of the longest side will do", m, MaxStyleMargin)
	}
	return nil
}

func checkSide(field string, size, minimum int) error {
	if size < minimum {
		return invalid(field, "is %d; a number of pixels, or 0, will do", size)
	}
	if size > maxSide {
		return invalid(field, "is %d; at most %d pixels will do", size, maxSide)
	}
	return nil
}

// checkScales reads a list of scales, each larger than the one before.
func (s *settings) checkScales() error {
	if s.Scales == ScalesAuto || s.Scales == ScalesOff {
		return nil
	}
	for text := range strings.SplitSeq(string(s.Scales), ",") {
		side, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || side <= 0 {
			return invalid("Scales", "%q is no schedule: auto, off, or longest sides such as 256,512 will do", s.Scales)
		}
		if err := checkSide("Scales", side, 1); err != nil {
			return err
		}
		if n := len(s.scales); n > 0 && side <= s.scales[n-1] {
			return invalid("Scales", "%q does not grow: each is to be larger than the one before", s.Scales)
		}
		s.scales = append(s.scales, side)
	}
	return nil
}

// checkPictures checks those pictures that are options.
func (s *settings) checkPictures() error {
	if s.Start == StartPicture {
		if err := s.Picture.Check(); err != nil {
			return invalid("Picture", "cannot be started from: %v", err)
		}
	}
	if s.Previous != nil {
		p := s.Previous.Picture
		if err := p.Check(); err != nil {
			return invalid("Previous", "cannot be held to: %v", err)
		}
		if n := p.Width * p.Height; len(s.Previous.Weights) != n {
			return invalid("Previous", "has %d weights for %d pixels", len(s.Previous.Weights), n)
		}
	}
	if (s.ContentMask == nil) != (len(s.StyleMasks) == 0) {
		return invalid("ContentMask", "and a mask for each style picture go together: give both or neither")
	}
	return nil
}

func checkNumber(field string, v float64, zero bool) error {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return invalid(field, "is %v; a finite number will do", v)
	case v < 0:
		return invalid(field, "is %v; it cannot be negative", v)
	case v == 0 && !zero:
		return invalid(field, "is 0; a positive number will do")
	}
	return nil
}

// layerWeights makes the layers of an option, which it completes.
func layerWeights(field string, given *[]LayerWeight, preset ...string) ([]objective.WeightedLayer, error) {
	layers := slices.Clone(*given)
	if len(layers) == 0 {
		for _, name := range preset {
			layers = append(layers, LayerWeight{Layer: name})
		}
	}
	var out []objective.WeightedLayer
	seen := map[string]bool{}
	for i, g := range layers {
		layer, err := vgg19.Lookup(g.Layer)
		if err != nil {
			return nil, invalid(field, "names an %v", err)
		}
		if seen[g.Layer] {
			return nil, invalid(field, "names %s twice", g.Layer)
		}
		seen[g.Layer] = true
		if g.Weight == nil {
			layers[i].Weight = new(1 / float64(len(layers)))
		} else if err := checkNumber(field, *g.Weight, true); err != nil {
			return nil, err
		}
		out = append(out, objective.WeightedLayer{Layer: layer, Weight: *layers[i].Weight})
	}
	*given = layers
	return out, nil
}
