package nst

import (
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// tile is a part of a picture that is evaluated by itself.
type tile struct {
	own  vgg19.Window // the part: those of a picture cover it and do not overlap
	seen vgg19.Window // with the halo, what the network has to see for it
}

// local is the tile's own part within what is seen.
func (t tile) local() vgg19.Window {
	return vgg19.Window{
		Top: t.own.Top - t.seen.Top, Left: t.own.Left - t.seen.Left,
		Bottom: t.own.Bottom - t.seen.Top, Right: t.own.Right - t.seen.Left,
	}
}

// guide is the tile's part [1,P] of a layer's guide; none of none.
func (t tile) guide(guide torch.Tensor, layer string, device torch.Device) torch.Tensor {
	if guide.T == nil {
		return guide
	}
	part := t.own.Positions(guide, strideOf(layer)).Of(guide)
	return torch.To(torch.View(part, 1, torch.Count(part)), device)
}

// size is how large tiles may be, in pixels; 0: as large as the picture.
type size struct {
	side int // of both sides
	band int // of the longer of a picture's dimensions, for bands across it
}

// cut divides a picture of width×height into tiles, none larger than size but by
// what is left over at the right and the lower edge (less than the deepest layer's
// stride), and all about equal. They are cut at multiples of the deepest layer's
// stride, and its halo is what they see beyond themselves.
func cut(width, height int, size size, deepest vgg19.Layer) []tile {
	across, along := size.side, size.side
	if size.band > 0 && (along == 0 || size.band < along) {
		along = size.band
	}
	if height > width {
		across, along = along, across
	}
	columns, rows := spans(width, along, deepest), spans(height, across, deepest)
	var all []tile
	for _, r := range rows {
		for _, c := range columns {
			all = append(all, tile{
				own:  vgg19.Window{Top: r.from, Left: c.from, Bottom: r.to, Right: c.to},
				seen: vgg19.Window{Top: r.first, Left: c.first, Bottom: r.last, Right: c.last},
			})
		}
	}
	return all
}

// span is one dimension of a tile.
type span struct{ from, to, first, last int }

func spans(length, side int, deepest vgg19.Layer) []span {
	stride := deepest.Stride
	cells := max(1, length/stride)
	each := cells
	if side > 0 {
		each = max(1, side/stride)
	}
	n := (cells + each - 1) / each
	var all []span
	for i := range n {
		s := span{from: i * cells / n * stride, to: (i + 1) * cells / n * stride}
		if i == n-1 {
			s.to = length
		}
		s.first, s.last = max(0, s.from-deepest.Halo), min(length, s.to+deepest.Halo)
		all = append(all, s)
	}
	return all
}
