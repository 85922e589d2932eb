package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Dimensions are a picture's.
type Dimensions struct{ Width, Height int }

// Job is what memory is estimated for: the evaluation of a tile of so many pictures of
// width×height.
type Job struct {
	Network       *vgg19.Network
	Tile          tiling.Tile
	Width, Height int
	Pictures      int
	Styles        []Dimensions      // all of the pictures'
	Remembered    int               // of how many style pictures the statistics are kept
	Recompute     bool              // the content's features are computed each time
	Keep          torch.KeptWeights // see vgg19.Network.SetKeep
}

// work is the network's part.
func (j Job) work(layers []vgg19.Layer, backward bool) vgg19.Work {
	seen := j.Tile.Seen
	return vgg19.Work{Height: seen.Bottom - seen.Top, Width: seen.Right - seen.Left, Own: j.Tile.Local(),
		Layers: layers, Images: j.Pictures, Backward: backward, Keep: j.Keep,
		Summing: map[vgg19.Layer]int64{}, Adding: map[vgg19.Layer]int64{}}
}

// whole is the same of the pictures as one tile.
func (j Job) whole() Job {
	all := vgg19.Window{Bottom: j.Height, Right: j.Width}
	j.Tile = tiling.Tile{Own: all, Seen: all}
	return j
}

// wideValue is what a value of statistics takes.
func (j Job) wideValue() int64 { return Extent{Value: j.Network.BytesPerValue()}.wideValue() }

// extent is the tile's of a layer.
func (j Job) extent(s *Spec, l vgg19.Layer, regions int) Extent {
	return Extent{Pictures: int64(j.Pictures), Maps: s.Channels[l], At: placeOf(j.Tile, l, j.Width, j.Height),
		Value: j.Network.BytesPerValue(), Guided: regions > 0}
}

// eachLoss calls do for the layers whose sums are compared, with the loss and in how many
// regions.
func (s *Spec) eachLoss(do func(l vgg19.Layer, loss Loss, regions int)) {
	if !s.Neighbours {
		for _, l := range s.StyleLayers() {
			do(l, s.StyleLoss, s.Regions)
		}
	}
	if s.ContentLoss != nil {
		for _, l := range s.ContentLayers() {
			do(l, s.ContentLoss, 0)
		}
	}
}

// Memory is what a worker needs for a job.
func (s *Spec) Memory(j Job) vgg19.Need {
	work, comparing := j.work(s.Layers(), true), int64(0)
	s.eachLoss(func(l vgg19.Layer, loss Loss, regions int) {
		takes := loss.Memory(j.extent(s, l, regions))
		work.Summing[l], work.Adding[l] = max(work.Summing[l], takes.Summing), max(work.Adding[l], takes.Adding)
		comparing = max(comparing, loss.Memory(j.whole().extent(s, l, regions)).Comparing)
	})
	content := layersOf(s.positional())
	for _, l := range content { // differences, but where they are the gradient: nothing has arrived
		if j.Tile.Own == j.Tile.Seen && l != s.Deepest() {
			work.Adding[l] = max(work.Adding[l], j.extent(s, l, 0).maps())
		}
	}
	if s.Neighbours {
		s.addNeighbours(j, work)
	}
	need := j.Network.Memory(work)
	need.Most = max(need.Most, need.Pass+comparing, s.centring(j))
	if j.Recompute && len(content) > 0 {
		need.Most = max(need.Most, j.Network.Memory(j.work(content, false)).Most)
		need.Most += s.contentFeatures(j)
	}
	return need
}

// addNeighbours adds what the nearest neighbours take of a tile.
func (s *Spec) addNeighbours(j Job, work vgg19.Work) {
	grid := s.Grid()
	unfolded, columns, most := int64(0), int64(0), int64(0) // on the grid
	for _, l := range s.StyleLayers() {
		of := j.extent(s, l, s.Regions)
		of.At = placeOf(j.Tile, vgg19.Layer{Stride: grid}, j.Width, j.Height)
		at := of.features()
		unfolded, columns, most = unfolded+at*finer(l, grid)*finer(l, grid), columns+at, max(most, at)
		// a layer's targets, its directions, and their product
		work.Adding[l] = max(work.Adding[l], 3*at*finer(l, grid)*finer(l, grid))
	}
	products := int64(0)
	for _, of := range j.Styles {
		products += columns / s.maps() * s.candidates(of)
	}
	for _, l := range s.StyleLayers() { // while the nearest are looked for
		work.Summing[l] = max(work.Summing[l], unfolded+columns+3*most+min(products, searchBytes))
	}
}

// searchBytes is what torch.Nearest holds at most.
const searchBytes = 64 << 20

// maps is how many the style layers have together.
func (s *Spec) maps() (count int64) {
	for _, l := range s.StyleLayers() {
		count += s.Channels[l]
	}
	return count
}

// candidates is how many a style picture has.
func (s *Spec) candidates(of Dimensions) int64 {
	lat := newLattice(int64(of.Height/s.Grid()), int64(of.Width/s.Grid()), mostCandidates)
	return lat.rows * lat.columns
}

// centring is what the largest layer's candidates take once more, while they are centred.
func (s *Spec) centring(j Job) (bytes int64) {
	if !s.Neighbours {
		return 0
	}
	grid, most := s.Grid(), int64(0)
	for _, l := range s.StyleLayers() {
		most = max(most, s.Channels[l]*finer(l, grid)*finer(l, grid))
	}
	for _, of := range j.Styles {
		bytes += most * s.candidates(of) * j.wideValue()
	}
	return bytes
}

// contentFeatures is what the content's features of a tile take, in bytes.
func (s *Spec) contentFeatures(j Job) (bytes int64) {
	for _, l := range layersOf(s.positional()) {
		bytes += j.extent(s, l, 0).maps()
	}
	return bytes
}

// ContentMemory is what those of the pictures take, in bytes.
func (s *Spec) ContentMemory(j Job) int64 { return s.contentFeatures(j.whole()) }

// StyleMemory is what a worker's device, and the primary one, hold of the styles and their
// regions, beside a tile's work, in bytes.
func (s *Spec) StyleMemory(j Job) (bytes int64) {
	s.eachLoss(func(l vgg19.Layer, loss Loss, of int) {
		bytes += int64(max(1, of)) * loss.Memory(j.whole().extent(s, l, of)).Held
	})
	if !s.Neighbours {
		for _, l := range s.StyleLayers() {
			of := j.whole().extent(s, l, s.Regions)
			bytes += int64(max(1, s.Regions)*j.Remembered) * s.StyleLoss.Memory(of).Statistics
		}
	}
	if s.Regions > 0 { // their guides, and how opaque the content is
		bytes += int64(s.Regions+1) * guideBytes(j.Width, j.Height, j.wideValue())
	}
	if s.Neighbours { // the hypercolumns, and the layers' unit vectors
		columns, grid := s.maps(), s.Grid()
		for _, l := range s.StyleLayers() {
			columns += s.Channels[l] * finer(l, grid) * finer(l, grid)
		}
		for _, of := range j.Styles {
			bytes += columns * s.candidates(of) * j.wideValue()
		}
	}
	return bytes
}

// guideBytes is what a guide takes at all strides.
func guideBytes(width, height int, value int64) int64 {
	return int64(width) * int64(height) * value * 4 / 3
}

// MeasuringMemory is what a worker needs to find what is compared with of a style picture, the
// job's one picture.
func (s *Spec) MeasuringMemory(j Job) int64 {
	work := j.work(s.StyleLayers(), false)
	for _, l := range s.StyleLayers() {
		if !s.Neighbours {
			work.Summing[l] = s.StyleLoss.Memory(j.extent(s, l, s.Regions)).Summing
		}
	}
	if s.Neighbours {
		s.addNeighbours(j, work)
	}
	// Until all guides are made there is what they are made of.
	guides := 4 * int64(s.Regions) * guideBytes(j.Width, j.Height, j.wideValue())
	return j.Network.Memory(work).Most + guides
}
