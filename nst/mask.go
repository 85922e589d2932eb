package nst

import (
	"fmt"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// mask is a picture's division into regions, each named by a grey level.
type mask struct {
	width, height int
	level         []uint8          // of each pixel
	count         map[uint8]int    // pixels of each level
	of            *picture.Picture // what it is of, whose alpha counts; nil: no alpha does
}

// wholeMask is the mask of one region that stands for the alpha of a picture.
func wholeMask(p *picture.Picture) *mask {
	n := p.Width * p.Height
	return &mask{width: p.Width, height: p.Height, level: make([]uint8, n), count: map[uint8]int{0: n}, of: p}
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
	visible := func(p *picture.Picture) bool {
		return p.Alpha == nil || slices.ContainsFunc(p.Alpha, func(a float32) bool { return a > 0 })
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

// alphaOf is a picture's alpha at a size, on the CPU.
func alphaOf(p *picture.Picture, width, height int) torch.Tensor {
	t := torch.FromFloats(p.Alpha, torch.CPU, 1, 1, int64(p.Height), int64(p.Width))
	return torch.ResizeLinear(t, int64(height), int64(width))
}

// maxRegions is how many grey levels a mask may have. More are the shades of
// soft edges or of JPEG's noise, not regions.
const maxRegions = 32

// newMask reads a mask; field names the option it is of.
func newMask(field string, p *picture.Picture) (*mask, error) {
	if err := p.Check(); err != nil {
		return nil, invalid(field, "cannot be used: %v", err)
	}
	p = p.OverWhite()
	n := p.Width * p.Height
	m := &mask{width: p.Width, height: p.Height, level: make([]uint8, n), count: map[uint8]int{}}
	for i := range n {
		r, g, b := p.Pixels[i], p.Pixels[n+i], p.Pixels[2*n+i]
		if max(r, g, b)-min(r, g, b) > 0.5/255 {
			return nil, invalid(field, "is not grey: its pixel at %d,%d is red %.0f, green %.0f, blue %.0f; a mask "+
				"names regions by grey levels",
				i%p.Width, i/p.Width, r*255, g*255, b*255)
		}
		m.level[i] = uint8(math.Round(float64(r) * 255))
		m.count[m.level[i]]++
	}
	if len(m.count) > maxRegions {
		return nil, invalid(field, "has %d grey levels; at most %d regions will do: draw it without soft edges and "+
			"save it as PNG", len(m.count), maxRegions)
	}
	return m, nil
}

// levels are the mask's regions, in order.
func (m *mask) levels() []uint8 {
	var out []uint8
	for l := range m.count {
		out = append(out, l)
	}
	slices.Sort(out)
	return out
}

// checkAspect says whether the mask has the aspect of the picture it is of.
func (m *mask) checkAspect(field, what string, p *picture.Picture) error {
	// The same picture at the mask's width is as high, but for rounding.
	high := float64(p.Height) * float64(m.width) / float64(p.Width)
	if math.Abs(high-float64(m.height)) > 0.5+0.01*high {
		return invalid(field, "is %d×%d, of another aspect than the %s, %d×%d", m.width, m.height, what, p.Width,
			p.Height)
	}
	return nil
}

// guides returns the regions' guides for a picture of width×height at the layers'
// strides, as tensors of the caller's scope. A region's membership is resized, and
// multiplied by alpha if that counts.
func (m *mask) guides(layers []vgg19.Layer, device torch.Device, scalar torch.ScalarType, width,
	height int) objective.Guides {
	out := objective.Guides{}
	for _, level := range m.levels() {
		member := make([]float32, len(m.level))
		for i, l := range m.level {
			if l == level {
				member[i] = 1
			}
		}
		t := torch.FromFloats(member, torch.CPU, 1, 1, int64(m.height), int64(m.width))
		t = torch.ResizeLinear(t, int64(height), int64(width))
		if m.of != nil {
			t = torch.Mul(t, alphaOf(m.of, width, height))
		}
		out.AddGuide(level, t, layers, device, scalar)
	}
	return out
}

// checkMasks reads the masks, none of them where there are none, and says
// whether every region of the content has its style.
func (s *settings) checkMasks(content *picture.Picture, styles []*picture.Picture) (*mask, []*mask, error) {
	if s.ContentMask == nil {
		content, all := alphaMasks(content, styles)
		return content, all, nil
	}
	if len(s.StyleMasks) != len(styles) {
		return nil, nil, invalid("StyleMasks", "are %d, for %d style pictures; give one for each", len(s.StyleMasks),
			len(styles))
	}
	read := func(field, what string, p, of *picture.Picture, w, h int) (*mask, error) {
		m, err := newMask(field, p)
		if err != nil {
			return nil, err
		}
		if err := m.checkAspect(field, what, of); err != nil {
			return nil, err
		}
		for _, level := range m.levels() {
			part := float64(m.count[level]) / float64(len(m.level))
			if square := s.deepest().Stride * s.deepest().Stride; part*float64(w*h) < float64(square) {
				return nil, invalid(field,
					"has an empty region: level %d covers %d of its pixels, about %.0f of the %d×%d that the %s is "+
						"used at; layer %s needs %d",
					level, m.count[level], part*float64(w*h), w, h, what, s.deepest().Name, square)
			}
		}
		return m, nil
	}
	w, h := s.contentSize(content, 1)
	contentMask, err := read("ContentMask", "content picture", s.ContentMask, content, w, h)
	if err != nil {
		return nil, nil, err
	}
	styleMasks := make([]*mask, len(styles))
	styled := map[uint8]string{} // level → which style has it
	for i, p := range styles {
		w, h := s.styleSize(p, 1)
		if styleMasks[i], err = read("StyleMasks", styleName(i, len(styles)), s.StyleMasks[i], p, w, h); err != nil {
			return nil, nil, err
		}
		for _, level := range styleMasks[i].levels() {
			if contentMask.count[level] == 0 {
				return nil, nil, invalid("ContentMask",
					"has no region of level %d, which the mask of the %s has; the content has %v", level, styleName(i,
						len(styles)), listLevels(contentMask.levels()))
			}
			if s.share(i, len(styles)) > 0 {
				styled[level] = styleName(i, len(styles))
			}
		}
	}
	for _, level := range contentMask.levels() {
		if styled[level] == "" {
			return nil, nil, invalid("StyleMasks", "have no region of level %d, which the content's mask has", level)
		}
	}
	for i, m := range append([]*mask{contentMask}, styleMasks...) {
		if p := append([]*picture.Picture{content}, styles...)[i]; p.Alpha != nil {
			m.of = p
		}
	}
	return contentMask, styleMasks, nil
}

// alphaMasks are masks for alpha alone, for all of the pictures if any of them has it.
func alphaMasks(content *picture.Picture, styles []*picture.Picture) (of *mask, all []*mask) {
	all = make([]*mask, len(styles))
	if content.Alpha != nil {
		of = wholeMask(content)
	}
	for i, p := range styles {
		if p.Alpha != nil {
			all[i] = wholeMask(p)
		}
	}
	return of, all
}

func listLevels(levels []uint8) string {
	text := fmt.Sprint(levels[0])
	for _, l := range levels[1:] {
		text += fmt.Sprintf(", %d", l)
	}
	return text
}
