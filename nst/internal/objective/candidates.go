package objective

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Candidates are positions of a style picture, of which the nearest is looked for: by
// layer their features, unfolded, [n_C·finer²,R]. Whoever has them closes them.
type Candidates map[vgg19.Layer]torch.Tensor

// Close frees the tensors.
func (c Candidates) Close() { eachTensor(c, func(t *torch.Tensor) { torch.Close(*t) }) }

// LevelCandidates are those of a picture's regions.
type LevelCandidates map[Level]Candidates

// Close frees the tensors.
func (c LevelCandidates) Close() {
	for _, one := range c {
		one.Close()
	}
}

// Unite makes one of the candidates of several pictures, which it uses up: of one those
// themselves, of more new ones.
func Unite(parts []LevelCandidates) LevelCandidates {
	if len(parts) == 1 {
		return parts[0]
	}
	out, whole := LevelCandidates{}, false
	defer func() {
		if !whole {
			out.Close()
		}
	}()
	for _, of := range parts {
		for level, layers := range of {
			if out[level] == nil {
				out[level] = Candidates{}
			}
			for l := range layers {
				if out[level][l].T == nil {
					out[level][l] = united(parts, level, l)
				}
			}
		}
	}
	whole = true
	return out
}

// united is a layer's candidates of a level, kept, of parts, of which it closes them.
func united(parts []LevelCandidates, level Level, l vgg19.Layer) torch.Tensor {
	var all []torch.Tensor
	count := int64(0)
	for _, of := range parts {
		if t := of[level][l]; t.T != nil {
			all, count = append(all, t), count+torch.Shape(t)[1]
		}
	}
	return torch.Keep(torch.Local(func() torch.Tensor {
		rows, first := torch.Shape(all[0])[0], int64(0)
		joined := torch.Cast(torch.Full(0, torch.DeviceOf(all[0]), rows, count), torch.TypeOf(all[0]))
		for _, t := range all {
			with := torch.Shape(t)[1]
			torch.Copy(torch.Slice(joined, 1, first, first+with), t)
			torch.Close(t)
			first += with
		}
		return joined
	}))
}

// mostCandidates is how many of a picture are looked among: all of a picture of a megapixel.
// Of a larger one every k-th row and column is taken.
const mostCandidates = 1 << 16

// coarsestGrid is the stride at which features are compared, where a layer has it: a quarter
// of the picture's sides, as in the paper.
const coarsestGrid = 4

// Grid is the stride of the positions whose neighbours are looked for: that of the coarsest
// style layer, at most coarsestGrid, or of the finest if all are coarser.
func (s *Spec) Grid() int {
	coarsest, finest := 0, math.MaxInt
	for _, l := range s.StyleLayers() {
		coarsest, finest = max(coarsest, l.Stride), min(finest, l.Stride)
	}
	return max(min(coarsest, coarsestGrid), finest)
}

// GuideLayers are those whose strides guides are wanted for: the style layers, and the grid.
func (s *Spec) GuideLayers() []vgg19.Layer {
	if !s.Neighbours {
		return s.StyleLayers()
	}
	return append(s.StyleLayers(), vgg19.Layer{Stride: s.Grid()})
}

// finer is how many of a layer's positions lie in a row of a square of the grid: 1 if the layer
// is as coarse, or coarser.
func finer(l vgg19.Layer, grid int) int64 { return max(1, int64(grid/l.Stride)) }

// unfolded are a layer's feature maps at rows×columns positions of a grid,
// [N,n_C·finer²,rows,columns]: all positions of a square where the layer is finer than the
// grid, and the one that covers it where it is coarser.
func unfolded(maps torch.Tensor, l vgg19.Layer, grid int, rows, columns int64) torch.Tensor {
	if r := finer(l, grid); l.Stride <= grid {
		return wide(torch.PixelUnshuffle(window(maps, 0, 0, rows*r, columns*r), r))
	}
	maps = wide(maps)
	covering := func(dim, count int64) torch.Tensor {
		last := torch.Shape(maps)[dim] - 1
		var of []int64
		for i := range count { // the last of the picture's may be of none
			of = append(of, min(i*int64(grid)/int64(l.Stride), last))
		}
		return torch.IndexSelect(maps, dim, places(of, torch.DeviceOf(maps)))
	}
	maps = covering(2, rows)
	return covering(3, columns)
}

// pooled are the means over the squares of unfolded features F [N,n_C·n,P].
func pooled(F torch.Tensor, n int64) torch.Tensor {
	if n == 1 {
		return F
	}
	shape := torch.Shape(F)
	c := shape[0] * shape[1] / n
	mean := torch.Cast(torch.Full(1/float64(n), torch.DeviceOf(F), c, 1, n), torch.TypeOf(F))
	return torch.View(torch.Bmm(mean, torch.View(F, c, n, shape[2])), shape[0], shape[1]/n, shape[2])
}

// places are whole numbers as a tensor.
func places(of []int64, device torch.Device) torch.Tensor {
	var data []byte
	for _, v := range of {
		data = binary.LittleEndian.AppendUint64(data, uint64(v))
	}
	return torch.To(torch.FromBytes(data, torch.Int64, int64(len(of))), device)
}

// lattice is every step-th row and column of a grid.
type lattice struct{ rows, columns, step int64 }

// newLattice is the finest one of at most so many positions.
func newLattice(rows, columns, most int64) lattice {
	for step := int64(1); ; step++ {
		if l := (lattice{up(rows, step), up(columns, step), step}); l.rows*l.columns <= most {
			return l
		}
	}
}

// up is the number of multiples of step from 0 to before n.
func up(n, step int64) int64 { return (n + step - 1) / step }

// of is a view of the lattice's positions in maps that begin at a row and a column of the
// grid, and where they begin in the lattice.
func (l lattice) of(maps torch.Tensor, row, column int64) (part torch.Tensor, top, left int64) {
	top, left = up(row, l.step), up(column, l.step)
	part = torch.Every(maps, 2, top*l.step-row, l.step)
	return torch.Every(part, 3, left*l.step-column, l.step), top, left
}

// featureMaps are a tile's by layer; a tiling.Part.
type featureMaps map[vgg19.Layer]torch.Tensor

// EachTensor implements tiling.Part.
func (m featureMaps) EachTensor(do func(*torch.Tensor)) { eachTensor(m, do) }

// MeasureCandidates finds the candidates of a style picture of width×height, tile by tile, for
// the nearest neighbours of the spec's style layers. guides, which may be nil, has its
// regions: a candidate is what belongs to one by half at least.
func MeasureCandidates(pool *tiling.Pool, spec *Spec, width, height int, source Source,
	guides Guides) (found LevelCandidates, err error) {
	layers, grid := spec.StyleLayers(), spec.Grid()
	lat := newLattice(int64(height/grid), int64(width/grid), mostCandidates)
	defer func() {
		if err != nil {
			found.Close()
			found = nil
		}
	}()
	err = pool.WithinMemory(width, height, vgg19.Deepest(layers), func() error {
		found.Close() // of an earlier try
		found = LevelCandidates{}
		return torch.Scoped(func() (err error) {
			torch.NoGrad(func() {
				all := featureMaps{}
				tiles := tiling.Cut(width, height, pool.Size, vgg19.Deepest(layers), torch.Wrap{})
				err = tiling.MapReduce(pool, len(tiles), func(w *tiling.Worker, i int) featureMaps {
					w.Drop(0)
					pass := w.Network.Run(torch.To(source(tiles[i]), w.Device()), tiles[i].Local(), layers, false)
					defer pass.Close()
					return gridFeatures(pass, tiles[i], layers, grid)
				}, func(i int, part featureMaps) {
					for _, l := range layers {
						of, top, left := lat.of(part[l], int64(tiles[i].Own.Top/grid), int64(tiles[i].Own.Left/grid))
						if torch.Count(of) > 0 {
							all[l] = placed(all[l], of, top, left, lat.rows, lat.columns)
						}
					}
				})
				all.EachTensor(func(t *torch.Tensor) { torch.Rejoin(*t) })
				if err == nil {
					all.candidates(found, guides, grid, lat)
				}
			})
			return err
		})
	})
	return found, err
}

// gridFeatures are a tile's features on the grid, unfolded.
func gridFeatures(pass *vgg19.Pass, tile tiling.Tile, layers []vgg19.Layer, grid int) featureMaps {
	out := featureMaps{}
	rows, columns := int64(tile.Own.Bottom/grid-tile.Own.Top/grid), int64(tile.Own.Right/grid-tile.Own.Left/grid)
	for _, l := range layers {
		out[l] = torch.Local(func() torch.Tensor { return unfolded(pass.Feature(l), l, grid, rows, columns) })
	}
	return out
}

// candidates are the positions that are of the regions, put into out, which has them closed.
func (m featureMaps) candidates(out LevelCandidates, guides Guides, grid int, lat lattice) {
	if guides == nil {
		guides = Guides{grid: {0: {}}}
	}
	for level, guide := range guides[grid] {
		out[level] = Candidates{}
		members := torch.Tensor{}
		for l, maps := range m {
			flat := torch.Flatten(matrix(maps), 0, 1)
			if guide.T != nil {
				if members.T == nil {
					members = places(halfOrMore(lat.largest(guide)), torch.DeviceOf(maps))
				}
				flat = torch.IndexSelect(flat, 1, members)
			}
			out[level][l] = torch.Keep(torch.Clone(flat))
		}
	}
}

// largest are the largest weights of a guide in the squares of the lattice, so that a region
// that none of the lattice's positions is in has the nearest of them.
func (l lattice) largest(guide torch.Tensor) []float64 {
	shape, values := torch.Shape(guide), torch.Float64s(guide)
	out := make([]float64, l.rows*l.columns)
	for i, v := range values {
		row, column := int64(i)/shape[3]/l.step, int64(i)%shape[3]/l.step
		out[row*l.columns+column] = max(out[row*l.columns+column], v)
	}
	return out
}

// halfOrMore are the places of those weights, squares of memberships, that are of half the
// largest membership or more.
func halfOrMore(weights []float64) (out []int64) {
	largest := slices.Max(weights)
	for i, w := range weights {
		if w >= largest/4 {
			out = append(out, int64(i))
		}
	}
	return out
}
