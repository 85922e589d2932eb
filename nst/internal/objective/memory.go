package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Memory is what a worker needs to evaluate a tile of so many pictures of width×height
// (see vgg19.Network.Memory). With recompute the content's features are computed each
// time; keep is what the network keeps of its weights, transformed.
func (s *Spec) Memory(network *vgg19.Network, t tiling.Tile, width, height, pictures int, recompute bool,
	keep torch.KeptWeights) vgg19.Need {
	work := vgg19.Work{
		Height: t.Seen.Bottom - t.Seen.Top, Width: t.Seen.Right - t.Seen.Left, Own: t.Local(),
		Layers: s.Layers(), Images: pictures, Backward: true, Keep: keep,
	}
	need := network.Memory(work)
	if content := layersOf(s.positional()); recompute && len(content) > 0 {
		work.Layers, work.Backward = content, false
		need.Most = max(need.Most, network.Memory(work).Most)
		for _, l := range content { // at the tile's positions
			values := float64(s.Channels[l]) * positions(l, width, height)
			own := float64((t.Own.Bottom - t.Own.Top) * (t.Own.Right - t.Own.Left))
			need.Most += int64(values*own/float64(width*height)) * int64(pictures) * network.BytesPerValue()
		}
	}
	if s.Neighbours { // a layer's targets, its directions, and their product
		most := int64(0)
		for _, l := range s.StyleLayers() {
			channels := s.Channels[l]
			l.Stride = min(l.Stride, s.Grid()) // what is coarser has targets on the grid
			own := placeOf(t, l, width, height)
			most = max(most, channels*own.Rows*own.Columns)
		}
		need.Most += 3 * most * int64(pictures) * max(4, network.BytesPerValue())
	}
	return need
}

// ContentMemory is what the features of so many content pictures take, in bytes.
func (s *Spec) ContentMemory(network *vgg19.Network, width, height, pictures int) (bytes int64) {
	for _, l := range layersOf(s.positional()) {
		bytes += int64(float64(s.Channels[l])*positions(l, width, height)) * int64(pictures) * network.BytesPerValue()
	}
	return bytes
}

// StyleMemory is what a worker's device, and the primary one, hold of the style, beside a
// tile's work, for so many pictures of width×height and of all their styles' sizes, in bytes.
func (s *Spec) StyleMemory(network *vgg19.Network, width, height, pictures int, styles []Dimensions) (bytes int64) {
	value := max(4, network.BytesPerValue())
	if _, ok := s.StyleLoss.(Sliced); ok { // the projections, sorted, and their slopes
		for _, l := range s.StyleLayers() {
			bytes += 3 * directionCount * int64(positions(l, width, height)) * int64(pictures) * value
		}
	}
	if s.Neighbours { // the hypercolumns, and the layers' unit vectors
		columns, search, grid := int64(0), int64(0), s.Grid()
		for _, l := range s.StyleLayers() {
			columns += s.Channels[l] * (1 + finer(l, grid)*finer(l, grid))
		}
		for _, of := range styles {
			lat := newLattice(int64(of.Height/grid), int64(of.Width/grid), mostCandidates)
			bytes += columns * lat.rows * lat.columns * value
			search = max(search, int64(height/grid)*int64(width/grid)*lat.rows*lat.columns*value)
		}
		bytes += min(search, searchBytes)
	}
	return bytes
}

// Dimensions are a picture's.
type Dimensions struct{ Width, Height int }

// searchBytes is what torch.Nearest holds at most.
const searchBytes = 64 << 20
