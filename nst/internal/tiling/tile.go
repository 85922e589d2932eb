// Package tiling divides pictures into tiles and shares the tiles out over devices.
//
// A tile is evaluated by itself, and what is found is exact: it sees, beyond its own
// pixels, the halo that its features depend on.
package tiling

import (
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Tile is a part of a picture that is evaluated by itself.
type Tile struct {
	Own vgg19.Window // the part: the tiles of a picture cover it and do not overlap
	// Seen is with the halo: what the network has to see for it. In the directions in
	// which the picture comes round it may lie beyond its edges.
	Seen vgg19.Window
}

// Local is the tile's own part within what is seen.
func (t Tile) Local() vgg19.Window {
	return vgg19.Window{
		Top: t.Own.Top - t.Seen.Top, Left: t.Own.Left - t.Seen.Left,
		Bottom: t.Own.Bottom - t.Seen.Top, Right: t.Own.Right - t.Seen.Left,
	}
}

// Size is how large tiles may be, in pixels; 0 means as large as the picture.
type Size struct {
	Side int // of both sides
	Band int // of the longer of a picture's dimensions, for bands across it
}

// Cut divides a picture of width×height into tiles, all about equal. None is larger
// than size, except by what is left over at the right and the lower edge (less than
// the stride of the deepest layer). Tiles begin at multiples of that stride, and see
// the deepest layer's halo. In the directions of wrap, in which the picture's sides are
// multiples of that stride, they see it beyond the edges too, where the network pads
// elsewhere.
func Cut(width, height int, size Size, deepest vgg19.Layer, wrap torch.Wrap) []Tile {
	across, along := size.Side, size.Side
	if size.Band > 0 && (along == 0 || size.Band < along) {
		along = size.Band
	}
	if height > width {
		across, along = along, across
	}
	columns, rows := spans(width, along, deepest, wrap.X), spans(height, across, deepest, wrap.Y)
	var all []Tile
	for _, r := range rows {
		for _, c := range columns {
			all = append(all, Tile{
				Own:  vgg19.Window{Top: r.from, Left: c.from, Bottom: r.to, Right: c.to},
				Seen: vgg19.Window{Top: r.first, Left: c.first, Bottom: r.last, Right: c.last},
			})
		}
	}
	return all
}

// span is one dimension of a tile: its own pixels, and those that it sees.
type span struct{ from, to, first, last int }

func spans(length, side int, deepest vgg19.Layer, wraps bool) []span {
	stride := deepest.Stride
	cells := max(1, length/stride)
	most := cells // in a span
	if side > 0 {
		most = max(1, side/stride)
	}
	n := (cells + most - 1) / most
	var all []span
	for i := range n {
		s := span{from: i * cells / n * stride, to: (i + 1) * cells / n * stride}
		if i == n-1 {
			s.to = length
		}
		s.first, s.last = s.from-deepest.Halo, s.to+deepest.Halo
		if !wraps {
			s.first, s.last = max(0, s.first), min(length, s.last)
		}
		all = append(all, s)
	}
	return all
}
