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
	if content := s.ContentLayers(); recompute && len(content) > 0 {
		work.Layers, work.Backward = content, false
		need.Most = max(need.Most, network.Memory(work).Most)
		for _, l := range content { // at the tile's positions
			values := float64(s.Channels[l]) * positions(l, width, height)
			own := float64((t.Own.Bottom - t.Own.Top) * (t.Own.Right - t.Own.Left))
			need.Most += int64(values*own/float64(width*height)) * int64(pictures) * network.BytesPerValue()
		}
	}
	return need
}

// ContentMemory is what the features of so many content pictures take, in bytes.
func (s *Spec) ContentMemory(network *vgg19.Network, width, height, pictures int) (bytes int64) {
	for _, l := range s.ContentLayers() {
		bytes += int64(float64(s.Channels[l])*positions(l, width, height)) * int64(pictures) * network.BytesPerValue()
	}
	return bytes
}
