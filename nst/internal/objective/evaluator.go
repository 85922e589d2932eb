package objective

import (
	"math"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Source returns the part of N pictures that a tile sees, [N,3,h,w], on the CPU.
type Source func(tiling.Tile) torch.Tensor

// Region is a part of the generated pictures that has its own style, at a layer.
// Without masks there is one, the whole picture.
type Region struct {
	Layer  vgg19.Layer
	Share  float64      // of the picture's pixels
	Guide  torch.Tensor // the weights of the layer's positions, [1,1,n_H,n_W]; none where all are equal
	Target Statistics   // of the style
}

// Evaluator computes the objective and its gradient for N pictures at once. It is a
// descent.Objective.
//
// An evaluation has three phases: (1) run the network and sum the statistics over the
// positions (or, the first time, find the nearest neighbours), (2) from the sums, the costs
// and their slopes, (3) feed ∂J/∂F in at the layers and back-propagate to the pixels. Phases
// 1 and 3 go tile by tile, and what is found is exact: a tile sees, beyond itself, all that
// its positions depend on, and its positions alone count. One tile that is the whole picture
// is run once, others twice, except those whose passes the workers keep.
type Evaluator struct {
	pool           *tiling.Pool
	spec           *Spec
	width, height  int // of the pictures
	layers         []vgg19.Layer
	tiles          []tiling.Tile
	cut            tiling.Size // of the tiles, of which the content's features are known
	content        []*contentTerm
	summed         []*summedTerm
	neighbourhoods []*neighbourhood // with Spec.Neighbours
	columns        columns

	source       Source
	opacity      Opacity      // nil: the content is wholly opaque
	temporal     *Temporal    // nil: the pictures are no frames
	coefficients torch.Tensor // see Totals; none before they are needed
}

// positional is a term that compares every position with a target of its own: a contentTerm
// or a neighbourTerm.
type positional interface{ at() vgg19.Layer }

func (t *contentTerm) at() vgg19.Layer   { return t.layer }
func (t *neighbourTerm) at() vgg19.Layer { return t.layer }

// contentTerm is one layer's part of the content cost.
type contentTerm struct {
	layer      vgg19.Layer
	weight     float64 // λ_l
	normaliser normaliser
	values     float64        // in a picture's maps, n_C·n_H·n_W
	features   []torch.Tensor // a_C at each tile's positions; none: they are computed when needed
}

// summedTerm is one layer's part of the style cost, or of a content cost, that compares
// sums over positions: the regions' costs, each times the region's share of the picture,
// summed.
type summedTerm struct {
	layer   vgg19.Layer
	weight  float64 // λ_l
	loss    Loss
	content bool // it is the content's
	regions []*region
}

type region struct {
	share  float64
	guide  torch.Tensor
	target Target
}

// columns are the places of the terms among an evaluation's values.
type columns struct {
	positional   map[positional]int
	summed       map[*region]map[Statistic]int
	tv, temporal int
	gradient     int
	count        int
}

func (e *Evaluator) layOut() columns {
	c := columns{positional: map[positional]int{}, summed: map[*region]map[Statistic]int{}}
	next := func() int {
		c.count++
		return c.count - 1
	}
	for _, t := range e.content {
		c.positional[t] = next()
	}
	for _, n := range e.neighbourhoods {
		for _, t := range n.compared() {
			c.positional[t] = next()
		}
	}
	for _, t := range e.summed {
		for _, r := range t.regions {
			c.summed[r] = map[Statistic]int{}
			for _, name := range r.target.terms() {
				c.summed[r][name] = next()
			}
		}
	}
	if e.spec.Gamma > 0 {
		c.tv = next()
	}
	if e.temporal != nil {
		c.temporal = next()
	}
	c.gradient = next()
	return c
}

// Styles are what the style cost compares with: regions, or, with Spec.Neighbours,
// neighbourhoods.
type Styles struct {
	Regions        []Region
	Neighbourhoods []Neighbourhood
}

// New makes an evaluator of pictures of width×height. It copies the regions' targets, keeps
// guides, uses candidates up (what it leaves of them is the caller's to close), and owns the
// opacity and the temporal term, of which each may be nil: Close frees them. Without memory
// for the content's features, the pool's tiles become smaller.
func New(pool *tiling.Pool, spec *Spec, width, height int, styles Styles, source Source, opacity Opacity,
	temporal *Temporal) (*Evaluator, error) {
	e := &Evaluator{pool: pool, spec: spec, width: width, height: height, layers: spec.Layers(), source: source,
		opacity: opacity, temporal: temporal}
	if temporal != nil {
		temporal.keep()
	}
	for _, l := range spec.positional() {
		values := float64(spec.Channels[l.Layer]) * positions(l.Layer, width, height)
		e.content = append(e.content, &contentTerm{layer: l.Layer, weight: l.Weight, values: values})
	}
	for _, l := range spec.style() {
		if !spec.Neighbours {
			e.summed = append(e.summed, &summedTerm{layer: l.Layer, weight: l.Weight, loss: spec.StyleLoss})
		}
	}
	made := false
	defer func() {
		if !made {
			e.Close()
		}
	}()
	err := torch.Scoped(func() error {
		torch.NoGrad(func() {
			for _, r := range styles.Regions {
				e.addRegion(r)
			}
			for _, n := range styles.Neighbourhoods {
				e.addNeighbourhood(n)
			}
		})
		return nil
	})
	if err == nil && spec.ContentLoss != nil {
		err = e.addContent()
	}
	e.columns = e.layOut()
	if err == nil {
		e.cut = notCut
		err = e.withinMemory(func() error { return nil })
	}
	if err != nil {
		return nil, err
	}
	made = true
	return e, nil
}

// addRegion gives a region to the style term of its layer.
func (e *Evaluator) addRegion(given Region) {
	for _, t := range e.summed {
		if t.layer == given.Layer && !t.content {
			t.add(e.spec, given, styleMeanSquare(float64(e.spec.Channels[t.layer])), e.spec.Beta)
		}
	}
}

// add gives the term a region. factor is the cost's, α or β.
func (t *summedTerm) add(spec *Spec, given Region, meanSquare, factor float64) {
	r := &region{share: given.Share, target: Target{Statistics{}, map[Statistic]normaliser{}}}
	t.regions = append(t.regions, r) // what is kept is closed, whatever comes
	if given.Guide.T != nil {
		r.guide = torch.Keep(given.Guide)
	}
	target, terms := t.loss.Target(given.Target)
	for name, tensor := range target {
		r.target.Statistics[name] = torch.Keep(torch.Clone(tensor))
	}
	for name, term := range terms {
		r.target.normalisers[name] = spec.newNormaliser(term.Squares, term.Values, meanSquare, statisticDimensions,
			factor*t.weight*given.Share)
	}
}

// Close releases all that the evaluator owns.
func (e *Evaluator) Close() {
	torch.Close(e.coefficients)
	e.opacity.Close()
	e.temporal.close()
	for _, t := range e.content {
		t.release()
	}
	for _, t := range e.summed {
		for _, r := range t.regions {
			torch.Close(r.guide)
			r.target.close()
		}
	}
	for _, n := range e.neighbourhoods {
		n.close()
	}
}

// Tiles is in how many parts the pictures are evaluated now.
func (e *Evaluator) Tiles() int { return len(e.tiles) }

// withinMemory is the pool's: before do is called again, the pictures are cut anew.
func (e *Evaluator) withinMemory(do func() error) error {
	return e.pool.WithinMemory(e.width, e.height, e.spec.Deepest(), func() error {
		if e.cut != e.pool.Size {
			if err := e.recut(); err != nil {
				return err
			}
		}
		return do()
	})
}

// recut cuts the pictures anew, by the pool's size of tiles.
func (e *Evaluator) recut() error {
	size := e.pool.Size
	e.tiles, e.cut = e.spec.Cut(e.width, e.height, size), notCut
	err := e.findContent()
	if err == nil {
		e.cut = size
	}
	return err
}

// notCut is no size of tiles.
var notCut = tiling.Size{Side: -1}

// Recordable says whether an evaluation can be recorded as a graph: all of it on one
// device that is not the CPU, with nothing of the content pictures' to be fetched from
// the host, without TorchScript, which minds it, and by a style loss that can be.
func (e *Evaluator) Recordable() bool {
	w := e.pool.Workers[0]
	return e.spec.recordable() && len(e.pool.Workers) == 1 && len(e.tiles) == 1 &&
		(!e.pool.Recompute || len(e.content) == 0) &&
		w.Device() != torch.CPU && e.pool.Primary == w.Device() && w.Network.LayerByLayer()
}

// Evaluate returns values [N,terms] of pictures x [N,3,H,W], which Costs and Totals
// weigh, and the gradient ∂J/∂x, as tensors of the caller's scope. All else that it makes
// is released. The work need not be done when it returns.
func (e *Evaluator) Evaluate(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	err = e.withinMemory(func() (err error) {
		values, gradient, err = e.EvaluateOnce(x)
		return err
	})
	return values, gradient, err
}

// EvaluateOnce is Evaluate without another try if there is not enough memory.
func (e *Evaluator) EvaluateOnce(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	defer e.pool.DropPasses()
	err = torch.Scoped(func() (err error) {
		torch.NoGrad(func() { values, gradient, err = e.evaluate(x) })
		if err == nil {
			torch.Keep(values)
			torch.Keep(gradient)
		}
		return err
	})
	if err != nil {
		return torch.Tensor{}, torch.Tensor{}, err
	}
	return torch.Rejoin(values), torch.Rejoin(gradient), nil
}

func (e *Evaluator) evaluate(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	if err := e.match(x); err != nil {
		return values, gradient, err
	}
	sums, err := e.sumUp(x)
	if err != nil {
		return values, gradient, err
	}
	roots := make([]torch.Tensor, e.columns.count) // norms: all are squared at once
	slopes := map[*region]Slopes{}
	for _, t := range e.summed {
		for _, r := range t.regions {
			c := local(func() comparison { return comparisonOf(t.loss.Compare(sums[r], r.target)) })
			slopes[r] = c.slopes
			for name, norm := range c.norms {
				roots[e.columns.summed[r][name]] = norm
			}
		}
	}
	norms, gradient, err := e.backPropagate(x, slopes)
	if err != nil {
		return values, gradient, err
	}
	for t, norm := range norms {
		roots[e.columns.positional[t]] = norm
	}
	if e.spec.Gamma > 0 {
		roots[e.columns.tv] = torch.Pow(totalVariation(x, gradient, e.spec.Gamma, e.spec.Wrap), 0.5)
	}
	if e.temporal != nil {
		roots[e.columns.temporal] = torch.Pow(e.temporal.cost(x, gradient, e.spec.Delta), 0.5)
	}
	// Where the picture is no number its gradient may be one: not every library's ReLU
	// passes NaN on.
	roots[e.columns.gradient] = torch.Norms(torch.AddScaled(gradient, x, 0))
	values = torch.Stack(roots, 1)
	torch.MulInPlace(values, values)
	return values, gradient, nil
}

// Terms is how many values an evaluation has of a picture.
func (e *Evaluator) Terms() int { return e.columns.count }

// Costs weighs the values of N pictures, on the host in float64.
func (e *Evaluator) Costs(values []float64) []Costs {
	out := make([]Costs, len(values)/e.columns.count)
	for i := range out {
		out[i] = e.costs(i, values[i*e.columns.count:])
	}
	return out
}

// costs weighs picture i's values.
func (e *Evaluator) costs(i int, values []float64) Costs {
	c := Costs{Style: map[vgg19.Layer]float64{}}
	for _, t := range e.content {
		c.Content += t.normaliser.cost(i, t.weight, values[e.columns.positional[t]])
	}
	for _, t := range e.summed {
		v := 0.0
		for _, r := range t.regions {
			for _, name := range r.target.terms() {
				v += r.target.normalisers[name].cost(i, r.share, values[e.columns.summed[r][name]])
			}
		}
		if t.content {
			c.Content += t.weight * v
		} else {
			c.Style[t.layer] = v
			c.Total += e.spec.Beta * t.weight * v
		}
	}
	c.Total += e.spec.Alpha * c.Content
	for _, n := range e.neighbourhoods {
		for _, t := range n.compared() {
			v := t.normaliser.cost(i, n.share, values[e.columns.positional[t]])
			c.Style[t.layer] += v
			c.Total += e.spec.Beta * t.weight * v
		}
	}
	if e.spec.Gamma > 0 {
		c.TV = values[e.columns.tv]
		c.Total += e.spec.Gamma * c.TV
	}
	if e.temporal != nil {
		c.Temporal = values[e.columns.temporal]
		c.Total += e.spec.Delta * c.Temporal
	}
	c.GradientL2 = math.Sqrt(values[e.columns.gradient])
	return c
}

// Totals is the pictures' totals [N] by their values [N,terms], on the device. A picture
// whose gradient is no number has no total either.
func (e *Evaluator) Totals(values torch.Tensor) torch.Tensor {
	if e.coefficients.T == nil {
		// A total is linear in the values: what it is where one alone is 1.
		shape := torch.Shape(values)
		var all []float32
		for i := range int(shape[0]) {
			for column := range e.columns.count {
				one := make([]float64, e.columns.count)
				one[column] = 1
				all = append(all, float32(e.costs(i, one).Total))
			}
		}
		e.coefficients = torch.Keep(torch.Cast(torch.FromFloats(all, torch.DeviceOf(values), shape...),
			torch.TypeOf(values)))
	}
	return torch.Sums(torch.Mul(e.coefficients, values))
}
