package nst

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// scale is one step of a coarse-to-fine schedule.
type scale struct {
	width, height int     // of the picture at this scale
	factor        float64 // of the result's size: style pictures shrink by it too
	iterations    int
}

// alphaAt is the content's weight at a scale. The smaller the picture, the larger
// the structures that a layer sees in it: with the same weight a small scale
// would move houses to where the painting has them, and the larger ones could
// not move them back.
func (s *settings) alphaAt(at scale) float64 { return s.spec.Alpha / at.factor }

const (
	// coarsest is about the longest side at which an automatic schedule begins:
	// there the deepest style layer still has some 50 positions.
	coarsest = 128
	// fewest is the least number of iterations that is worth a scale of an
	// automatic schedule.
	fewest = 5
	// smallShare is the iterations of a scale half as large as the result, for
	// each of the result's. They fall as a scale's size grows, so that all the
	// small ones together take a fifth of the time at most. (With more, at 256 and
	// 512 px, a run ended higher than in the same time at the size alone.)
	smallShare = 1. / 6
)

// schedule is the run's scales, the last of which is the result's size.
func (s *settings) schedule(content *picture.Picture, styles []*picture.Picture) ([]scale, error) {
	if w, h := s.contentSize(content, 1); int64(w)*int64(h) > picture.MaxPixels {
		return nil, invalid("Size", "makes a picture of %d×%d; at most %d million pixels will do", w, h,
			picture.MaxPixels/1_000_000)
	}
	final := longest(s.contentSize(content, 1))
	sides := s.scales
	if n := len(sides); n > 0 && sides[n-1] > final {
		return nil, invalid("Scales", "%q goes beyond the result's longest side, %d", s.Scales, final)
	}
	if s.Scales == ScalesAuto {
		sides = s.automatic(final, content, styles)
	}
	if n := len(sides); n == 0 || sides[n-1] < final {
		sides = append(slices.Clone(sides), final)
	}
	sides = sides[max(0, len(sides)-max(1, s.iterations)):] // no scale without an iteration
	var out []scale
	for i, n := range shares(s.iterations, sides) {
		factor := float64(sides[i]) / float64(final)
		width, height := s.contentSize(content, factor)
		if i == len(sides)-1 {
			factor = 1
		}
		out = append(out, scale{width, height, factor, n})
		if err := s.checkSizesAt(factor, content, styles); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// automatic is the sides √2 apart that end in final, without those that are too
// small for a layer, or smaller than the picture to start from (which they
// would blur), and without more of them than the iterations are worth.
func (s *settings) automatic(final int, content *picture.Picture, styles []*picture.Picture) []int {
	sides := []int{final}
	for {
		side := int(math.Round(float64(final) / math.Pow(2, float64(len(sides))/2)))
		tooFew := slices.Min(shares(s.iterations, slices.Concat([]int{side},
			slices.Sorted(slices.Values(sides))))) < fewest
		blurred := s.Start == StartPicture && side < longest(s.Picture.Width, s.Picture.Height)
		tooSmall := s.checkSizesAt(float64(side)/float64(final), content, styles) != nil
		if float64(side) < coarsest/math.Pow(2, 0.25) || tooFew || blurred || tooSmall {
			break
		}
		sides = append(sides, side)
	}
	slices.Reverse(sides)
	return sides
}

// shares divides iterations among scales of these longest sides, the last the
// result's. What rounding leaves goes to the last; each has one if there are
// enough.
func shares(iterations int, sides []int) []int {
	last := len(sides) - 1
	weights, sum := make([]float64, len(sides)), 0.0
	for i, side := range sides {
		weights[i] = 1
		if i < last {
			weights[i] = min(1, smallShare*float64(sides[last])/float64(2*side))
		}
		sum += weights[i]
	}
	out, left := make([]int, len(sides)), iterations
	for i := range last {
		out[i] = max(1, int(float64(iterations)*weights[i]/sum))
		out[i] = min(out[i], max(0, left-(last-i)))
		left -= out[i]
	}
	out[last] = left
	return out
}

func longest(width, height int) int { return max(width, height) }

// ResultSize is the size of the picture that Stylize makes of content. It looks at
// the sizes of the pictures alone, with styles at those of the masks, too, and the error, which
// is Stylize's, says what of them and the options does not go together.
func (o Options) ResultSize(content *picture.Picture, styles ...*picture.Picture) (width, height int, err error) {
	s, err := o.withDefaults()
	if err != nil {
		return 0, 0, err
	}
	if len(styles) > 0 {
		if err := s.checkTogether(content, styles); err != nil {
			return 0, 0, err
		}
	}
	width, height = s.contentSize(content, 1)
	return width, height, nil
}

// checkTogether says whether the settings go together with pictures of these sizes.
func (s *settings) checkTogether(content *picture.Picture, styles []*picture.Picture) error {
	if n := len(s.StyleWeights); n > 0 && n != len(styles) {
		return invalid("StyleWeights", "are %d, for %d style pictures", n, len(styles))
	}
	if err := s.checkStyleFor(len(styles)); err != nil {
		return err
	}
	if err := s.checkMaskSizes(content, styles); err != nil {
		return err
	}
	return s.checkSizesAt(1, content, styles)
}

// contentSize is the result's size, times factor.
func (s *settings) contentSize(p *picture.Picture, factor float64) (width, height int) {
	width, height = usedSize(p, *s.Size, factor)
	// What comes round has whole positions in every layer.
	stride := s.deepest().Stride
	whole := func(side int) int { return max(1, (side+stride/2)/stride) * stride }
	wrap := s.Wrap.Directions()
	if wrap.X {
		width = whole(width)
	}
	if wrap.Y {
		height = whole(height)
	}
	return width, height
}

// shape is the size of what is used of a style picture, and the longest side of the
// picture as it was given.
type shape struct{ width, height, given int }

// shapes are those of a style picture without its margin, at the angles of StyleRotate.
func (s *settings) shapes(p *picture.Picture) (out []shape) {
	for _, angle := range s.angles() {
		w, h := picture.RotatedSize(p.Width, p.Height, angle)
		edge := s.margin(w, h)
		out = append(out, shape{w - 2*edge, h - 2*edge, longest(p.Width, p.Height)})
	}
	return out
}

// angles are those at which style pictures are used.
func (s *settings) angles() []float64 {
	if len(s.StyleRotate) == 0 {
		return []float64{0}
	}
	return s.StyleRotate
}

// margin is how many pixels of a style picture of width×height are cut off at each edge.
func (s *settings) margin(width, height int) int {
	edge := int(math.Round(*s.StyleMargin * float64(longest(width, height))))
	return min(edge, min(width, height)/4)
}

// styleSize is the size at which a style picture is used at the scale that is
// factor times the result: what was cut off is as large as it would have been.
func (s *settings) styleSize(p shape, factor float64) (width, height int) {
	size := *s.StyleSize
	if size == 0 || s.spec.Alpha == 0 && size > p.given {
		size = p.given // a texture is as sharp as the style: what is enlarged is not
	}
	factor *= *s.StyleScale * float64(size) / float64(p.given)
	return picture.Fit(p.width, p.height, int(math.Round(float64(longest(p.width, p.height))*factor)))
}

// usedSize is the picture's size with its longest side made size (0: its own) times
// factor.
func usedSize(p *picture.Picture, size int, factor float64) (width, height int) {
	if size == 0 {
		size = max(p.Width, p.Height)
	}
	return picture.Fit(p.Width, p.Height, int(math.Round(float64(size)*factor)))
}

// checkSizesAt says whether a scale's pictures are large enough for every
// layer to have a position.
func (s *settings) checkSizesAt(factor float64, content *picture.Picture, styles []*picture.Picture) error {
	if s.Transfer == TransferColor { // without a network
		return nil
	}
	deepest := s.deepest()
	check := func(what string, p *picture.Picture, w, h int) error {
		for _, side := range []struct {
			w, h int
			how  string
		}{{p.Width, p.Height, "is"}, {w, h, fmt.Sprintf("becomes, with its longest side %d,", max(w, h))}} {
			if min(side.w, side.h) < deepest.Stride {
				return fmt.Errorf("%w: the %s %s %d×%d; layer %s needs at least %d×%d", picture.ErrPicture, what,
					side.how, side.w, side.h, deepest.Name, deepest.Stride, deepest.Stride)
			}
		}
		return nil
	}
	w, h := s.contentSize(content, factor)
	if err := check("content picture", content, w, h); err != nil {
		return err
	}
	for i, p := range styles {
		for k, cut := range s.shapes(p) {
			what := styleName(i, len(styles))
			if angle := s.angles()[k]; angle != 0 {
				what += fmt.Sprintf(", turned by %g°,", angle)
			}
			w, h := s.styleSize(cut, factor)
			if err := check(what, p, w, h); err != nil {
				return err
			}
		}
	}
	return nil
}

func styleName(i, n int) string {
	if n == 1 {
		return "style picture"
	}
	return fmt.Sprintf("style picture %d", i+1)
}
