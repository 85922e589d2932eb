package objective

import (
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// With Spec.Neighbours a position p is compared not with statistics of the style but with
// the style's position that is most like it (Kolkin et al. 2022, arXiv:2203.13215):
//
//	J_l = Σ_p w_p·‖u(F_p − μ_S) − t_p‖²,   u(v) = v/‖v‖
//
// where t_p is u(F_S − μ_S) at that position of the style: twice the cosine distance of the
// centred features. Which one it is is found by the hypercolumns h, the features of all
// style layers at a position,
//
//	argmax_q ⟨h_p − μ_G, u(h_q − μ_S)⟩
//
// each layer divided by its root mean square and weighed by λ_l, for the picture that is
// evaluated first: once for each scale. They are looked for on one grid: a layer that is
// finer is pooled to it, and of one that is coarser the position counts that covers the
// grid's, so that no position beyond a tile is looked at. Then all positions of a finer
// layer in a square of the grid are compared with those of the style's square, and a coarser
// layer's with the mean of the targets that it covers. Of several styles the targets are the
// weighted mean.

// Neighbourhood is a region of the generated pictures and what its positions are compared
// with.
type Neighbourhood struct {
	Share float64
	// Guides are the weights of positions by stride, which the grid needs; nil where all are
	// equal. A layer without them has no position there, and no cost.
	Guides map[int]torch.Tensor
	// Styles are those of each picture. The evaluator uses the candidates up.
	Styles [][]WeightedCandidates
}

// WeightedCandidates are one style's, and its weight among those of its picture.
type WeightedCandidates struct {
	Candidates
	Weight float64
}

type neighbourhood struct {
	share    float64
	guides   map[int]torch.Tensor
	pictures [][]*matches
	terms    []*neighbourTerm
}

// neighbourTerm is one layer's part of the search, and of the cost, of a neighbourhood.
type neighbourTerm struct {
	of         *neighbourhood
	layer      vgg19.Layer
	weight     float64      // λ_l
	none       bool         // the region has no position in the layer: it has no cost
	mean       torch.Tensor // μ_S [N,n_C,1]
	normaliser normaliser
}

// compared are the terms of the cost.
func (n *neighbourhood) compared() (out []*neighbourTerm) {
	for _, t := range n.terms {
		if !t.none {
			out = append(out, t)
		}
	}
	return out
}

// matches are one style's candidates for one picture, and which of them are nearest.
type matches struct {
	weight       float64 // of the weights whose sum is 1
	means        map[vgg19.Layer]torch.Tensor
	units        map[torch.Device]map[vgg19.Layer]torch.Tensor // u(F_S − μ_S) [n_C·finer²,R]
	hypercolumns torch.Tensor                                  // [D,R]; none once they are matched
	nearest      torch.Tensor                                  // of each position of the grid [1,1,rows,columns]
}

// addNeighbourhood gives a neighbourhood its terms.
func (e *Evaluator) addNeighbourhood(given Neighbourhood) {
	n := &neighbourhood{share: given.Share, guides: map[int]torch.Tensor{}}
	e.neighbourhoods = append(e.neighbourhoods, n) // what is kept is closed, whatever comes
	for stride, guide := range given.Guides {
		n.guides[stride] = torch.Keep(guide)
	}
	for _, styles := range given.Styles {
		sum := 0.0
		for _, s := range styles {
			sum += s.Weight
		}
		var all []*matches
		for _, s := range styles {
			m := &matches{weight: s.Weight / sum, means: map[vgg19.Layer]torch.Tensor{},
				units: map[torch.Device]map[vgg19.Layer]torch.Tensor{}}
			all = append(all, m)
			e.addCandidates(m, s.Candidates)
		}
		n.pictures = append(n.pictures, all)
	}
	for _, l := range e.spec.style() {
		_, there := n.guides[max(l.Layer.Stride, e.spec.Grid())]
		term := &neighbourTerm{of: n, layer: l.Layer, weight: l.Weight, none: given.Guides != nil && !there}
		n.terms = append(n.terms, term)
		var means []torch.Tensor
		for _, styles := range n.pictures {
			mean := torch.Tensor{}
			for _, m := range styles {
				part := torch.Scale(m.means[l.Layer], m.weight)
				if mean.T != nil {
					part = torch.Add(mean, part)
				}
				mean = part
			}
			means = append(means, mean)
		}
		term.mean = torch.Keep(torch.Clone(StackPictures(means)))
		size := torch.Full(1, e.pool.Primary, int64(len(n.pictures))) // a unit vector's
		term.normaliser = e.spec.newNormaliser(torch.Cast(size, torch.TypeOf(term.mean)), 1,
			styleMeanSquare(float64(e.spec.Channels[l.Layer])), statisticDimensions, e.spec.Beta*l.Weight*given.Share)
	}
}

// addCandidates makes of a style's features what is searched and compared, on every device.
// It closes each layer's when it has what it wants of them.
func (e *Evaluator) addCandidates(m *matches, features Candidates) {
	var rows, count int64
	grid := e.spec.Grid()
	for l, f := range features {
		rows, count = rows+e.spec.Channels[l], torch.Shape(f)[1]
	}
	first := int64(0)
	for _, l := range e.spec.style() {
		torch.Within(func() {
			f, c, n := features[l.Layer], e.spec.Channels[l.Layer], finer(l.Layer, grid)*finer(l.Layer, grid)
			mean := torch.View(torch.Scale(torch.Sums(torch.View(f, c, n*count)), 1/float64(n*count)), 1, c, 1)
			f = torch.Sub(torch.View(f, 1, c, n*count), mean)
			torch.Close(features[l.Layer])
			if m.hypercolumns.T == nil {
				m.hypercolumns = torch.Keep(torch.Cast(torch.Full(0, torch.DeviceOf(f), rows, count), torch.TypeOf(f)))
			}
			column := torch.View(pooled(torch.View(f, 1, c*n, count), n), c, count)
			size := torch.Float64s(torch.Sum(torch.SquareSums(column)))[0] / float64(count)
			scale := math.Sqrt(l.Weight / positive(size))
			torch.Copy(torch.Slice(m.hypercolumns, 0, first, first+c), torch.Scale(column, scale))
			first += c
			m.means[l.Layer] = torch.Keep(mean)
			units, _ := torch.Units(f, torch.Tensor{})
			for _, w := range e.pool.Workers {
				if m.units[w.Device()] == nil {
					m.units[w.Device()] = map[vgg19.Layer]torch.Tensor{}
				}
				if m.units[w.Device()][l.Layer].T == nil {
					m.units[w.Device()][l.Layer] = torch.Keep(torch.To(torch.View(units, c*n, count), w.Device()))
				}
			}
		})
	}
	units, _ := torch.Units(torch.View(m.hypercolumns, 1, rows, count), torch.Tensor{})
	torch.Close(m.hypercolumns)
	m.hypercolumns = torch.Keep(torch.View(units, rows, count))
}

func (n *neighbourhood) close() {
	for _, guide := range n.guides {
		torch.Close(guide)
	}
	for _, styles := range n.pictures {
		for _, m := range styles {
			torch.Close(m.hypercolumns, m.nearest)
			eachTensor(m.means, func(t *torch.Tensor) { torch.Close(*t) })
			for _, units := range m.units {
				eachTensor(units, func(t *torch.Tensor) { torch.Close(*t) })
			}
		}
	}
	for _, term := range n.terms {
		torch.Close(term.mean)
		term.normaliser.close()
	}
}

// weights are those of the positions of a stride in a tile, [1,P], or what each has if they
// are equal.
func (n *neighbourhood) weights(stride int, tile tiling.Tile, width, height int,
	device torch.Device) (guide torch.Tensor, uniform float64) {
	if whole, ok := n.guides[stride]; ok {
		part := tile.Own.Positions(whole, stride).Of(whole)
		return torch.To(torch.View(part, 1, torch.Count(part)), device), 0
	}
	return torch.Tensor{}, 1 / float64((height/stride)*(width/stride))
}

// eachMatches calls do for every style of every picture.
func (e *Evaluator) eachMatches(do func(n *neighbourhood, picture int, m *matches)) {
	for _, n := range e.neighbourhoods {
		for picture, styles := range n.pictures {
			for _, m := range styles {
				do(n, picture, m)
			}
		}
	}
}

// Nearest are the places of the nearest candidates, a tensor for each picture's styles in
// each region, which stay the evaluator's; none before the first evaluation.
func (e *Evaluator) Nearest() (out []torch.Tensor) {
	e.eachMatches(func(_ *neighbourhood, _ int, m *matches) {
		if m.nearest.T != nil {
			out = append(out, m.nearest)
		}
	})
	return out
}

// Choices are what Nearest's tensors are of: their shape, and, of each, among how many
// candidates its places are. They are asked for before SetNearest.
func (e *Evaluator) Choices() (shape []int64, candidates []int64) {
	grid := int64(e.spec.Grid())
	e.eachMatches(func(_ *neighbourhood, _ int, m *matches) {
		candidates = append(candidates, torch.Shape(m.hypercolumns)[1])
	})
	return []int64{1, 1, int64(e.height) / grid, int64(e.width) / grid}, candidates
}

// SetNearest has the evaluator compare with what Nearest of another evaluator of the same
// scale returned, which are to be as Choices says.
func (e *Evaluator) SetNearest(nearest []torch.Tensor) {
	i := 0
	e.eachMatches(func(_ *neighbourhood, _ int, m *matches) {
		m.nearest = torch.Keep(torch.Clone(torch.To(nearest[i], e.pool.Primary)))
		i++
	})
	e.matched()
}

// matched frees what is needed to find the nearest candidates alone.
func (e *Evaluator) matched() {
	e.eachMatches(func(_ *neighbourhood, _ int, m *matches) {
		torch.Close(m.hypercolumns)
		m.hypercolumns = torch.Tensor{}
	})
}

// layerSums are, of a tile's positions, the weighted sums that center and size a
// neighbourhood's hypercolumns; a tiling.Part.
type layerSums map[*neighbourTerm]Statistics

// squareMeans is E‖F‖² [N].
const squareMeans Statistic = "square"

// EachTensor implements tiling.Part.
func (s layerSums) EachTensor(do func(*torch.Tensor)) {
	for _, of := range s {
		of.EachTensor(do)
	}
}

// nearestPart is what match finds of a tile; a tiling.Part.
type nearestPart map[*matches]torch.Tensor

// EachTensor implements tiling.Part.
func (p nearestPart) EachTensor(do func(*torch.Tensor)) { eachTensor(p, do) }

// match finds the nearest candidates for pictures x, if they are not known yet.
func (e *Evaluator) match(x torch.Tensor) error {
	if len(e.neighbourhoods) == 0 || len(e.Nearest()) > 0 {
		return nil
	}
	grid, sums := e.spec.Grid(), layerSums{}
	err := tiling.MapReduce(e.pool, len(e.tiles), func(w *tiling.Worker, i int) layerSums {
		pass := e.run(w, x, i)
		w.Keep(i, pass)
		part, maps := layerSums{}, gridFeatures(pass, e.tiles[i], e.spec.StyleLayers(), grid)
		for _, n := range e.neighbourhoods {
			guide, uniform := n.weights(grid, e.tiles[i], e.width, e.height, w.Device())
			for _, term := range n.terms {
				part[term] = local(func() Statistics { return weightedSums(term.pooled(maps, grid), guide, uniform) })
			}
		}
		return part
	}, func(_ int, part layerSums) {
		for term, of := range part {
			if sums[term] == nil {
				sums[term] = Statistics{}
			}
			addTensors(sums[term], of)
		}
	})
	sums.EachTensor(func(t *torch.Tensor) { torch.Rejoin(*t) })
	if err != nil {
		return err
	}
	found := nearestPart{}
	err = tiling.MapReduce(e.pool, len(e.tiles), func(w *tiling.Worker, i int) nearestPart {
		pass := e.run(w, x, i)
		w.Keep(i, pass)
		part, maps := nearestPart{}, gridFeatures(pass, e.tiles[i], e.spec.StyleLayers(), grid)
		for _, n := range e.neighbourhoods {
			for picture, columns := range e.hypercolumns(n, maps, sums, w.Device()) {
				shape := torch.Shape(maps[n.terms[0].layer])
				for _, m := range n.pictures[picture] {
					part[m] = torch.Local(func() torch.Tensor {
						nearest := torch.Nearest(columns, torch.To(m.hypercolumns, w.Device()))
						return torch.View(nearest, 1, 1, shape[2], shape[3])
					})
				}
			}
		}
		return part
	}, func(i int, part nearestPart) {
		for m, t := range part {
			at := placeOf(e.tiles[i], vgg19.Layer{Stride: grid}, e.width, e.height)
			found[m] = placed(found[m], t, at.Top, at.Left, at.Height, at.Width)
		}
	})
	if err != nil {
		found.EachTensor(func(t *torch.Tensor) { torch.Close(*t) })
		return err
	}
	for m, t := range found {
		m.nearest = t
	}
	e.matched()
	return nil
}

// weightedSums are Σ w_p·F_p and Σ w_p·‖F_p‖² of features F [N,n_C,P].
func weightedSums(F, guide torch.Tensor, uniform float64) Statistics {
	if guide.T == nil {
		guide = torch.Full(uniform, torch.DeviceOf(F), 1, torch.Shape(F)[2])
	}
	guide = torch.Cast(guide, torch.TypeOf(F))
	squares := torch.Mul(F, F)
	torch.MulInPlace(squares, guide)
	return Statistics{Means: torch.Bmm(F, torch.Transpose(guide, 0, 1)), squareMeans: torch.Sums(squares)}
}

// hypercolumns are those of each picture [D,P], centred, of a tile's features on the grid.
func (e *Evaluator) hypercolumns(n *neighbourhood, maps featureMaps, sums layerSums,
	device torch.Device) []torch.Tensor {
	out := make([]torch.Tensor, len(n.pictures))
	rows, first := int64(0), int64(0)
	grid := e.spec.Grid()
	for _, term := range n.terms {
		rows += e.spec.Channels[term.layer]
	}
	like := matrix(maps[n.terms[0].layer])
	for picture := range out {
		out[picture] = torch.Cast(torch.Full(0, device, rows, torch.Shape(like)[2]), torch.TypeOf(like))
	}
	for _, term := range n.terms {
		torch.Within(func() {
			F, mean := term.pooled(maps, grid), torch.To(sums[term][Means], device)
			shape := torch.Shape(F)
			variance := torch.Sub(torch.To(sums[term][squareMeans], device), torch.SquareSums(mean))
			torch.ClampInPlace(variance, smallestEigenvalue, math.Inf(1))
			scale := torch.View(torch.Scale(torch.Pow(variance, -0.5), math.Sqrt(term.weight)), shape[0], 1, 1)
			F = torch.Sub(F, mean)
			torch.MulInPlace(F, scale)
			for picture, all := range out {
				torch.Copy(torch.Slice(all, 0, first, first+shape[1]), torch.Flatten(OnePicture(F, picture), 0, 1))
			}
			first += shape[1]
		})
	}
	return out
}

// pooled are the term's features on the grid, [N,n_C,P].
func (t *neighbourTerm) pooled(maps featureMaps, grid int) torch.Tensor {
	r := finer(t.layer, grid)
	return pooled(matrix(maps[t.layer]), r*r)
}

// targets are t at a layer's positions of a tile [N,n_C,P], unfolded as its features are.
func (t *neighbourTerm) targets(tile tiling.Tile, grid int, device torch.Device) torch.Tensor {
	var all []torch.Tensor
	for _, styles := range t.of.pictures {
		all = append(all, torch.Local(func() torch.Tensor { return t.blended(styles, tile, grid, device) }))
	}
	if len(all) == 1 {
		return all[0]
	}
	defer torch.Close(all...)
	return StackPictures(all)
}

// blended are one picture's targets.
func (t *neighbourTerm) blended(styles []*matches, tile tiling.Tile, grid int, device torch.Device) (sum torch.Tensor) {
	for _, m := range styles {
		of := torch.Local(func() torch.Tensor {
			part := tile.Own.Positions(m.nearest, grid).Of(m.nearest)
			shape, units := torch.Shape(part), m.units[device][t.layer]
			found := torch.IndexSelect(units, 1, torch.To(torch.Flatten(part, 0, 3), device))
			return torch.View(found, 1, torch.Shape(units)[0], shape[2], shape[3])
		})
		switch {
		case len(styles) == 1:
			sum = of
		case sum.T == nil:
			sum = of
			torch.ScaleInPlace(sum, m.weight)
		default:
			torch.AddInPlace(sum, of, m.weight)
			torch.Close(of)
		}
	}
	for stride := grid; stride < t.layer.Stride; stride *= 2 {
		sum = torch.AvgPool2d(sum)
	}
	return sum
}

// addGradient adds the term's gradient at a tile's features to into, and puts the norm [N] of
// the differences, which it keeps, into norms.
func (t *neighbourTerm) addGradient(e *Evaluator, maps, into torch.Tensor, fresh bool, tile tiling.Tile,
	device torch.Device, norms map[positional]torch.Tensor) {
	grid, stride := e.spec.Grid(), max(e.spec.Grid(), t.layer.Stride)
	target, r := t.targets(tile, grid, device), finer(t.layer, grid)
	shape := torch.Shape(target)
	positions := []int64{shape[0], shape[1] / (r * r), r * r * shape[2] * shape[3]}
	F := torch.Local(func() torch.Tensor {
		f := maps
		if r > 1 {
			f = torch.PixelUnshuffle(window(maps, 0, 0, shape[2]*r, shape[3]*r), r)
		}
		return wide(torch.View(f, positions...))
	})
	u, lengths := torch.Units(F, torch.To(t.mean, device))
	torch.Close(F)
	d := torch.View(target, positions...)
	torch.Subtract(d, u, d)
	guide, uniform := t.of.weights(stride, tile, e.width, e.height, device)
	uniform /= float64(r * r)
	if guide.T == nil {
		norms[t] = torch.Keep(torch.Scale(torch.Norms(d), math.Sqrt(uniform)))
	} else {
		part := torch.Scale(guide, 1/float64(r*r)) // each of a square's
		guide = torch.View(torch.Stack(slices.Repeat([]torch.Tensor{part}, int(r*r)), 0), 1, positions[2])
		norms[t] = torch.Keep(torch.Local(func() torch.Tensor {
			return torch.Norms(torch.Mul(d, torch.Pow(guide, 0.5)))
		}))
	}
	t.normaliser.applySlope(d)
	torch.UnitsBackwardInPlace(d, u, lengths)
	torch.Close(u)
	if guide.T != nil {
		torch.MulInPlace(d, guide)
		uniform = 1
	}
	g := torch.View(d, shape...)
	if r > 1 {
		g = torch.PixelShuffle(g, r)
	}
	if fresh { // what is left over at the picture's edges has none
		torch.Copy(into, torch.Full(0, device))
	}
	torch.AddInPlace(window(into, 0, 0, shape[2]*r, shape[3]*r), g, uniform)
}
