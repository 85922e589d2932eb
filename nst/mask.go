package nst

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// mask is a picture's division into regions, each named by a grey level. A pixel whose
// level lies between two regions' belongs to both, the more the nearer.
type mask struct {
	width, height int
	level         []uint8           // of each pixel; nil: all are of level 0
	shares        map[uint8]float64 // the regions' parts of the picture
	of            *picture.Picture
	inside        torch.Wrap       // in these directions the edges, where the network pads, do not count
	strength      *picture.Picture // see Options.StrengthMask; nil: 1
}

// wholeMask is the mask of one region, all of a picture.
func wholeMask(p *picture.Picture) *mask {
	return &mask{width: p.Width, height: p.Height, shares: map[uint8]float64{0: 1}, of: p}
}

// withAlpha makes the pictures what Options.Alpha has of them: over white, or as they
// are, if something of each can be seen.
func (s *settings) withAlpha(content *picture.Picture, styles []*picture.Picture) (*picture.Picture, []*picture.Picture,
	error) {
	if s.Alpha == AlphaWhite || (s.Alpha == "" && content.Alpha == nil) {
		over := make([]*picture.Picture, len(styles))
		for i, p := range styles {
			over[i] = p.OverWhite()
		}
		return content.OverWhite(), over, nil
	}
	for i, p := range styles {
		if !visible(p) {
			return nil, nil, invalid("Alpha",
				"has nothing to keep: the %s is wholly transparent; %s puts it over white", styleName(i,
					len(styles)), AlphaWhite)
		}
	}
	if !visible(content) {
		return nil, nil, invalid("Alpha",
			"has nothing to keep: the content picture is wholly transparent; %s puts it over white", AlphaWhite)
	}
	return content, styles, nil
}

// visible says whether anything of a picture can be seen.
func visible(p *picture.Picture) bool {
	return p.Alpha == nil || slices.ContainsFunc(p.Alpha, func(a float32) bool { return a > 0 })
}

// alphaOf is a picture's alpha at a size, on the CPU.
func alphaOf(p *picture.Picture, width, height int, wrap torch.Wrap) torch.Tensor {
	t := torch.FromFloats(p.Alpha, torch.CPU, 1, 1, int64(p.Height), int64(p.Width))
	return torch.ResizeLinear(t, int64(height), int64(width), wrap)
}

// maxRegions is how many grey levels a mask may have. More are the shades of
// soft edges or of JPEG's noise, not regions.
const maxRegions = 32

// newMask reads a mask; field names the option it is of. Its regions are the levels given,
// or, if there are none, those that it has.
func newMask(field string, p *picture.Picture, regions []uint8) (*mask, error) {
	level, err := greyLevels(field, p)
	if err != nil {
		return nil, err
	}
	pixels := [256]int{}
	for _, l := range level {
		pixels[l]++
	}
	if regions == nil {
		for l, n := range pixels {
			if n > 0 {
				regions = append(regions, uint8(l))
			}
		}
		if len(regions) > maxRegions {
			return nil, invalid(field, "has %d grey levels; at most %d regions will do: draw it without soft "+
				"edges and save it as PNG, or have MaskSoft blend them", len(regions), maxRegions)
		}
	}
	m := &mask{width: p.Width, height: p.Height, level: level, shares: map[uint8]float64{}}
	for _, l := range regions {
		m.shares[l] = 0
	}
	for _, region := range regions {
		for l, belongs := range m.belongs(region) {
			m.shares[region] += float64(belongs) * float64(pixels[l]) / float64(len(level))
		}
	}
	return m, nil
}

// greyLevels are a picture's levels, 0 to 255, pixel by pixel.
func greyLevels(field string, p *picture.Picture) ([]uint8, error) {
	if err := p.Check(); err != nil {
		return nil, invalid(field, "cannot be used: %v", err)
	}
	p = p.OverWhite()
	n := p.Width * p.Height
	out := make([]uint8, n)
	for i := range n {
		r, g, b := p.Pixels[i], p.Pixels[n+i], p.Pixels[2*n+i]
		if max(r, g, b)-min(r, g, b) > 0.5/255 {
			return nil, invalid(field, "is not grey: its pixel at %d,%d is red %.0f, green %.0f, blue %.0f; a mask "+
				"is of grey levels", i%p.Width, i/p.Width, r*255, g*255, b*255)
		}
		out[i] = uint8(math.Round(float64(r) * 255))
	}
	return out, nil
}

// belongs is how far a pixel of each level belongs to a region: 1 at the region's own, 0
// from the next region's on, and linear between.
func (m *mask) belongs(region uint8) (out [256]float32) {
	regions := m.levels()
	k := slices.Index(regions, region)
	at := func(i int) float32 { return float32(regions[i]) }
	for l := range out {
		v := float32(l)
		switch {
		case l < int(region) && k > 0:
			out[l] = max(0, (v-at(k-1))/(at(k)-at(k-1)))
		case l > int(region) && k+1 < len(regions):
			out[l] = max(0, (at(k+1)-v)/(at(k+1)-at(k)))
		default:
			out[l] = 1
		}
	}
	return out
}

// levels are the mask's regions, in order.
func (m *mask) levels() []uint8 { return slices.Sorted(maps.Keys(m.shares)) }

// checkMaskSizes says whether the masks that go together are there, and have the aspects of
// the pictures they are of, by the sizes of all.
func (s *settings) checkMaskSizes(content *picture.Picture, styles []*picture.Picture) error {
	if s.MaskSoft && s.ContentMask == nil {
		return invalid("MaskSoft", "blends the regions of a mask of the content, which is missing")
	}
	if n := len(s.StyleMasks); n > 0 && n != len(styles) {
		return invalid("StyleMasks", "are %d, for %d style pictures; give one for each", n, len(styles))
	}
	// A mask's sides are rounded, and so are a picture's that is a frame of a clip: to even
	// numbers, or to whole positions of what comes round.
	rounding := 1.0
	if s.Wrap.Directions() != (torch.Wrap{}) {
		rounding = float64(s.deepest().Stride)
	}
	check := func(field, what string, mask, p *picture.Picture) error {
		if mask == nil || sameAspect(p, mask, 0.5) || sameAspect(mask, p, rounding) {
			return nil
		}
		return invalid(field, "is %d×%d, of another aspect than the %s, %d×%d", mask.Width, mask.Height, what, p.Width,
			p.Height)
	}
	for i, mask := range s.StyleMasks {
		if err := check("StyleMasks", styleName(i, len(styles)), mask, styles[i]); err != nil {
			return err
		}
	}
	if err := check("ContentMask", "content picture", s.ContentMask, content); err != nil {
		return err
	}
	return check("StrengthMask", "content picture", s.StrengthMask, content)
}

// sameAspect says whether from, made as wide as to, is as high, or as wide when made as high,
// but for so many pixels and a hundredth.
func sameAspect(from, to *picture.Picture, pixels float64) bool {
	near := func(scaled, side float64) bool { return math.Abs(scaled-side) <= pixels+0.01*scaled }
	w, h := float64(from.Width), float64(from.Height)
	return near(h*float64(to.Width)/w, float64(to.Height)) || near(w*float64(to.Height)/h, float64(to.Width))
}

// guides returns the regions' guides for a picture of width×height at the layers'
// strides, as tensors of the caller's scope. A region's membership is resized, multiplied
// by the picture's alpha and the strength, and 0 at the edges that do not count.
func (m *mask) guides(layers []vgg19.Layer, device torch.Device, scalar torch.ScalarType, width, height int,
	wrap torch.Wrap) objective.Guides {
	out := objective.Guides{}
	for _, level := range m.levels() {
		t := m.member(level, width, height, wrap)
		if m.of.Alpha != nil {
			t = torch.Mul(t, alphaOf(m.of, width, height, wrap))
		}
		if m.strength != nil {
			grey := torch.FromFloats(m.strength.Pixels[:m.strength.Width*m.strength.Height], torch.CPU, 1, 1,
				int64(m.strength.Height), int64(m.strength.Width))
			t = torch.Mul(t, torch.ResizeLinear(grey, int64(height), int64(width), wrap))
		}
		if x, y := edge(m.inside.X, width), edge(m.inside.Y, height); x+y > 0 {
			inside := vgg19.Window{Top: y, Left: x, Bottom: height - y, Right: width - x}
			t = torch.Pad(inside.View(t), int64(y), int64(x), int64(height), int64(width))
		}
		out.AddGuide(level, t, layers, device, scalar)
	}
	return out
}

// edge is how many pixels at each end of a side do not count.
func edge(left bool, side int) int {
	if !left {
		return 0
	}
	return side / 16
}

// member is how far each pixel of a picture of width×height belongs to a region, 0 to 1.
func (m *mask) member(level uint8, width, height int, wrap torch.Wrap) torch.Tensor {
	if m.level == nil {
		return torch.Full(1, torch.CPU, 1, 1, int64(height), int64(width))
	}
	member, belongs := make([]float32, len(m.level)), m.belongs(level)
	for i, l := range m.level {
		member[i] = belongs[l]
	}
	t := torch.FromFloats(member, torch.CPU, 1, 1, int64(m.height), int64(m.width))
	return torch.ResizeLinear(t, int64(height), int64(width), wrap)
}

// checkMasks reads the masks, none of them where there are none, and says
// whether every region of the content has its style. styles are the style pictures, cut
// the same as they are used.
func (s *settings) checkMasks(content *picture.Picture, styles, cut []*picture.Picture) (*mask, []*mask, error) {
	if s.ContentMask == nil {
		return s.wholeMasks(content, cut)
	}
	read := func(field, what string, p *picture.Picture, w, h int, regions []uint8) (*mask, error) {
		m, err := newMask(field, p, regions)
		if err != nil {
			return nil, err
		}
		for _, level := range m.levels() {
			square := s.deepest().Stride * s.deepest().Stride
			if pixels := m.shares[level] * float64(w*h); pixels < float64(square) {
				return nil, invalid(field, "has an empty region: level %d covers %.0f of its pixels, about %.0f of "+
					"the %d×%d that the %s is used at; layer %s needs %d", level, m.shares[level]*float64(len(m.level)),
					pixels, w, h, what, s.deepest().Name, square)
			}
		}
		return m, nil
	}
	styleMasks := make([]*mask, len(styles))
	styled := map[uint8]string{} // level → which style has it
	var regions []uint8          // of all styles
	for i, p := range styles {
		what := styleName(i, len(styles))
		if err := s.StyleMasks[i].Check(); err != nil { // it is cut before it is read
			return nil, nil, invalid("StyleMasks", "cannot be used: %v", err)
		}
		w, h := s.styleSize(s.shapes(p)[0], 1)
		m, err := read("StyleMasks", what, s.trimmed(s.StyleMasks[i]), w, h, nil)
		if err != nil {
			return nil, nil, err
		}
		styleMasks[i] = m
		for _, level := range m.levels() {
			regions = append(regions, level)
			if s.share(i, len(styles)) > 0 {
				styled[level] = styleName(i, len(styles))
			}
		}
	}
	w, h := s.contentSize(content, 1)
	if !s.MaskSoft {
		regions = nil
	}
	slices.Sort(regions)
	contentMask, err := read("ContentMask", "content picture", s.ContentMask, w, h, slices.Compact(regions))
	if err != nil {
		return nil, nil, err
	}
	for i, m := range styleMasks {
		for _, level := range m.levels() {
			if _, ok := contentMask.shares[level]; !ok {
				return nil, nil, invalid("ContentMask",
					"has no region of level %d, which the mask of the %s has; the content has %v", level, styleName(i,
						len(styles)), listLevels(contentMask.levels()))
			}
		}
	}
	for _, level := range contentMask.levels() {
		if styled[level] == "" {
			return nil, nil, invalid("StyleMasks", "have no region of level %d, which the content's mask has", level)
		}
	}
	if err := s.strengthen(contentMask); err != nil {
		return nil, nil, err
	}
	contentMask.of = content
	for i, m := range styleMasks {
		m.of, m.inside = cut[i], s.Wrap.Directions()
	}
	return contentMask, styleMasks, nil
}

// wholeMasks are masks of one region for the pictures of which not all counts alike: those
// with alpha, the styles of a result that comes round, which has no edge as they have, and a
// content with a mask of strength.
func (s *settings) wholeMasks(content *picture.Picture, styles []*picture.Picture) (of *mask, all []*mask, err error) {
	all = make([]*mask, len(styles))
	if content.Alpha != nil || s.StrengthMask != nil {
		of = wholeMask(content)
		if err := s.strengthen(of); err != nil {
			return nil, nil, err
		}
	}
	for i, p := range styles {
		if p.Alpha != nil || s.Wrap.Directions() != (torch.Wrap{}) {
			all[i] = wholeMask(p)
			all[i].inside = s.Wrap.Directions()
		}
	}
	return of, all, nil
}

// strengthen gives the content's mask the strength, if there is one.
func (s *settings) strengthen(m *mask) error {
	p := s.StrengthMask
	if p == nil {
		return nil
	}
	level, err := greyLevels("StrengthMask", p)
	if err != nil {
		return err
	}
	if slices.Max(level) == 0 {
		return invalid("StrengthMask", "is all black: no place has any style")
	}
	m.strength = p.OverWhite()
	// A region counts by its positions' squares: what is weak everywhere is weak.
	square := 0.0
	for _, l := range level {
		square += float64(l) * float64(l) / (255 * 255 * float64(len(level)))
	}
	for region := range m.shares {
		m.shares[region] *= square
	}
	return nil
}

func listLevels(levels []uint8) string {
	text := fmt.Sprint(levels[0])
	for _, l := range levels[1:] {
		text += fmt.Sprintf(", %d", l)
	}
	return text
}
