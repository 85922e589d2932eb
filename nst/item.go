package nst

import (
	"fmt"
	"math/rand/v2"

	"github.com/seed9bb5c928/nst/nst/internal/descent"
	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// item is one picture to be made: what it is made of, and what becomes of it.
type item struct {
	settings    *settings
	content     *picture.Picture
	contentMask *mask // nil without masks
	styles      []style

	chroma  *picture.Picture // whose chroma the result has; nil: its own
	colours *picture.Picture // the same at the result's size
}

// style is a style picture as it is used.
type style struct {
	picture *picture.Picture
	id      fingerprint
	mask    *mask   // nil: all of it counts alike
	share   float64 // of the blend
	shape   shape
	name    string // of the picture that was given
	of      int    // which of the pictures that were given
}

// newItem finds out all that it can before the work begins.
func newItem(s *settings, in Input) (m *item, err error) {
	content, styles := in.Content, in.Styles
	if len(styles) == 0 {
		return nil, fmt.Errorf("%w: there is no style picture", picture.ErrPicture)
	}
	if err := content.Check(); err != nil {
		return nil, fmt.Errorf("the content picture: %w", err)
	}
	for i, p := range styles {
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("the %s: %w", styleName(i, len(styles)), err)
		}
	}
	if content, styles, err = s.withAlpha(content, styles); err != nil {
		return nil, err
	}
	if content.Alpha != nil && s.ContentLoss == SimilarityLoss {
		return nil, invalid("ContentLoss", "%s is not for a content picture with transparent pixels; Alpha %s puts it "+
			"over white", s.ContentLoss, AlphaWhite)
	}
	m = &item{settings: s, content: content}
	if err := s.checkTogether(content, styles); err != nil {
		return nil, err
	}
	for i, p := range styles {
		m.styles = append(m.styles, s.cut(p, i, len(styles))...)
	}
	for _, one := range m.styles {
		if !visible(one.picture) {
			return nil, invalid("StyleMargin", "leaves nothing of the %s that can be seen: it is transparent but for "+
				"its edges", one.name)
		}
	}
	contentMask, masks, err := s.checkMasks(content, styles, m.stylePictures())
	if err != nil {
		return nil, err
	}
	m.contentMask = contentMask
	if s.Color == ColorContent || s.Transfer == TransferLuminance {
		m.chroma = content
	}
	if s.Transfer == TransferLuminance {
		m.content = picture.Luminance(content)
	}
	for i := range m.styles {
		one := &m.styles[i]
		one.mask = masks[i]
		if s.Transfer == TransferLuminance {
			one.picture = picture.Luminance(one.picture)
		}
		if s.Color == ColorMatch || s.Transfer == TransferLuminance {
			one.picture = picture.MatchColors(one.picture, m.content)
		}
		one.id = fingerprintOf(one.picture)
	}
	return m, nil
}

// cut is style picture i of n without its margin, at the angles of StyleRotate, which share
// its share.
func (s *settings) cut(p *picture.Picture, i, n int) (out []style) {
	shapes := s.shapes(p)
	for k, angle := range s.angles() {
		one := style{picture: s.trimmed(p.Rotated(angle)), share: s.share(i, n) / float64(len(shapes)),
			shape: shapes[k], name: styleName(i, n), of: i}
		if len(shapes) > 1 {
			one.name += fmt.Sprintf(" at %g°", angle)
		}
		out = append(out, one)
	}
	return out
}

// trimmed is a style picture, or its mask, without its margin.
func (s *settings) trimmed(p *picture.Picture) *picture.Picture {
	return p.Trimmed(s.margin(p.Width, p.Height))
}

// stylePictures are the styles' pictures.
func (m *item) stylePictures() (out []*picture.Picture) {
	for _, one := range m.styles {
		out = append(out, one.picture)
	}
	return out
}

// tensor is a picture at a size, in the precision of the run.
func (s *settings) tensor(p *picture.Picture, device torch.Device, width, height int) torch.Tensor {
	return torch.Cast(tensorOf(p, device, width, height, s.Wrap.Directions()), s.Precision.scalar())
}

// part is what a tile sees of a picture, on the CPU, in the precision of the run.
func (s *settings) part(p *picture.Picture, t tiling.Tile) torch.Tensor {
	return torch.Cast(partOf(p, t.Seen.Left, t.Seen.Top, t.Seen.Right-t.Seen.Left, t.Seen.Bottom-t.Seen.Top),
		s.Precision.scalar())
}

// start is the picture to start from at a scale, before it is resized.
func (m *item) start(at scale) *picture.Picture {
	p := m.content
	switch m.settings.Start {
	case StartNoise:
		p = noise(m.settings.Seed, at.width, at.height)
	case StartFaint:
		p = noise(m.settings.Seed, at.width, at.height)
		for i, v := range p.Pixels {
			p.Pixels[i] = 0.5 + 0.1*(v-0.5)
		}
	case StartGray:
		p = picture.New(at.width, at.height)
		for i := range p.Pixels {
			p.Pixels[i] = 0.5
		}
	case StartPicture:
		p = m.settings.Picture
	}
	return p
}

// noise is uniform in [0,1), the same for a seed on every device.
func noise(seed uint64, width, height int) *picture.Picture {
	random := rand.New(rand.NewPCG(seed, 0))
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = random.Float32()
	}
	return p
}

// result is the item's best picture, which is the descent's i-th, at the result's size.
func (m *item) result(d *descent.Descent, i int, final scale) *picture.Picture {
	best := objective.OnePicture(d.Best(), i)
	if shape := torch.Shape(best); int(shape[3]) != final.width || int(shape[2]) != final.height {
		best = torch.Resize(best, int64(final.height), int64(final.width), m.settings.Wrap.Directions())
	}
	return m.finish(pictureOf(best))
}

// finish gives a picture its colours and its alpha.
func (m *item) finish(p *picture.Picture) *picture.Picture {
	if p = m.coloured(p); m.content.Alpha == nil {
		return p
	}
	out := *p
	out.Alpha = resizedPlanes(m.content.Alpha, m.content, p.Width, p.Height, m.settings.Wrap.Directions())
	plane := p.Width * p.Height
	for i, a := range out.Alpha {
		if a == 0 { // nothing was optimised there
			out.Pixels[i], out.Pixels[plane+i], out.Pixels[2*plane+i] = 1, 1, 1
		}
	}
	return &out
}

// coloured gives a picture its colours.
func (m *item) coloured(p *picture.Picture) *picture.Picture {
	if m.chroma == nil {
		return p
	}
	if m.colours == nil || m.colours.Width != p.Width || m.colours.Height != p.Height {
		m.colours = resized(m.chroma, p.Width, p.Height, m.settings.Wrap.Directions())
	}
	return picture.Recolor(p, m.colours)
}

// styledItem is an item and what its styles have at a scale: targets, or, with nearest
// neighbours, candidates.
type styledItem struct {
	item       *item
	targets    []weightedTargets
	candidates []weightedCandidates
}

// styles are what the objective of some items, made together, compares with, as tensors of
// the caller's scope (but candidates, which it hands on). The items have the same masks. The
// error is of a region that has no position in any layer at the result's size.
func styles(items []styledItem, spec *objective.Spec, device torch.Device, at scale) (out objective.Styles, err error) {
	m := items[0].item
	var guides objective.Guides
	levels := []objective.Level{0}
	if m.contentMask != nil {
		guides = m.contentMask.guides(spec.GuideLayers(), device, m.settings.Precision.scalar(), at.width, at.height,
			spec.Wrap)
		levels = m.contentMask.levels()
	}
	seen := map[objective.Level]bool{}
	for _, level := range levels {
		share := 1.0
		if m.contentMask != nil {
			share = m.contentMask.shares[level]
		}
		if spec.Neighbours {
			n, there := neighbourhood(items, guides, spec.Grid(), level)
			if n.Share = share; there {
				out.Neighbourhoods, seen[level] = append(out.Neighbourhoods, n), true
			}
			continue
		}
		for _, l := range spec.StyleLayers() {
			r := objective.Region{Layer: l, Share: share}
			there := true
			if m.contentMask != nil {
				r.Guide, there = guides[l.Stride][level]
			}
			var blended []objective.Statistics
			for _, i := range items {
				if b := blend(i.targets, l, level); b != nil {
					blended = append(blended, b)
				}
			}
			// A small region may have no position in a deep layer of a coarse scale.
			if !there || len(blended) < len(items) {
				continue
			}
			r.Target = objective.Stack(blended)
			out.Regions, seen[level] = append(out.Regions, r), true
		}
	}
	for _, level := range levels {
		if at.factor == 1 && len(spec.StyleLayers()) > 0 && !seen[level] {
			return out, invalid("StyleMasks", "and what of the styles is transparent leave no place for the region of "+
				"level %d: all of it is at edges that do not count", level)
		}
	}
	return out, nil
}

// neighbourhood is a region's, but for its share, if it is there: on the grid, in some layer
// and in some style of each item.
func neighbourhood(items []styledItem, guides objective.Guides, grid int, level objective.Level) (
	n objective.Neighbourhood, there bool) {
	if guides != nil {
		n.Guides = map[int]torch.Tensor{}
		for stride, of := range guides {
			if guide, ok := of[level]; ok {
				n.Guides[stride] = guide
			}
		}
		if _, there = n.Guides[grid]; !there {
			return n, false
		}
	}
	for _, i := range items {
		var all []objective.WeightedCandidates
		for _, c := range i.candidates {
			if of, ok := c.LevelCandidates[level]; ok {
				all = append(all, objective.WeightedCandidates{Candidates: of, Weight: c.share})
			}
		}
		if len(all) == 0 {
			return n, false
		}
		n.Styles = append(n.Styles, all)
	}
	return n, true
}
