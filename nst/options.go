package nst

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// ErrInvalidOption is matched (errors.Is) by every error about Options.
var ErrInvalidOption = errors.New("invalid option")

// OptionError says which field of Options is wrong, and how.
type OptionError struct {
	// Field is the name of the field, such as "StyleLayers".
	Field string
	// Problem completes "Field …": the value, and what would do.
	Problem string
}

// Error returns the field and the problem.
func (e *OptionError) Error() string { return e.Field + " " + e.Problem }

// Is says that the error is an ErrInvalidOption.
func (e *OptionError) Is(target error) bool { return target == ErrInvalidOption }

func invalid(field, format string, args ...any) error {
	return &OptionError{field, fmt.Sprintf(format, args...)}
}

// Preset names an objective with the weights, optimiser, rate and number of
// iterations that belong to it.
type Preset string

const (
	// Balanced divides each layer's style cost by its target's own squared norm
	// and the content cost by its target's mean square, so that weights mean
	// the same for every network, size and style. It is the default.
	Balanced Preset = "balanced"
	// Classic is the costs as they are in cost.go, α 10, β 40, Adam at 2/255.
	Classic Preset = "classic"
	// Gatys is what Gatys published with the paper: mean-square costs, weight 1
	// on the content and 1000/C² on each style layer of C maps, L-BFGS.
	Gatys Preset = "gatys"
)

// Optimizer names the method that changes the pixels.
type Optimizer string

const (
	// Adam is Kingma and Ba's (arXiv:1412.6980), β₁ 0.9, β₂ 0.999, ε 1e-8.
	Adam Optimizer = "adam"
	// LBFGS is Liu and Nocedal's limited-memory BFGS, one evaluation an
	// iteration; it remembers 50 steps, each of which takes twice the picture's
	// memory.
	LBFGS Optimizer = "lbfgs"
)

// Start names the picture that the optimisation starts from.
type Start string

const (
	StartContent Start = "content" // the content picture
	StartNoise   Start = "noise"   // uniform noise, by Seed
	StartGray    Start = "gray"    // 50 % gray
	StartPicture Start = "picture" // Options.Picture, resized if its size differs
)

// Precision names how the network computes.
type Precision string

const (
	// Exact is float32 throughout, with direct convolutions. It is the default.
	Exact Precision = "exact"
	// Double is float64 throughout: slow, and there to compare with. A picture
	// on which many activations nearly tie (any start from a photograph) takes,
	// after a few steps, another path in float32, in every implementation.
	Double Precision = "double"
)

// scalar is the type of every tensor.
func (p Precision) scalar() torch.ScalarType {
	if p == Double {
		return torch.Float64
	}
	return torch.Float32
}

// OwnSize, as a size, keeps a picture's own.
const OwnSize = -1

// DefaultSize is the longest side of the result where Options names none.
const DefaultSize = 512

// LayerWeight names a layer of the network and its weight among the content or
// style layers.
type LayerWeight struct {
	Layer string
	// Weight is λ_l; nil means 1/n, n being the number of layers named.
	Weight *float64
}

// Options chooses what Stylize does. The zero value is the default; nil
// pointers mean what the preset has.
type Options struct {
	// Preset is Balanced if empty.
	Preset Preset
	// Size is the longest side of the result in pixels: 0 means DefaultSize,
	// OwnSize the content picture's own.
	Size int
	// StyleSize is the longest side at which style pictures are used: 0 means
	// as Size (their own if that is OwnSize), OwnSize each picture's own.
	StyleSize int
	// Start is StartContent if empty.
	Start Start
	// Picture is where StartPicture starts.
	Picture *picture.Picture
	// Seed is of everything random: the same seed gives the same result, bit
	// for bit, on one machine with one number of threads.
	Seed uint64
	// ContentWeight and StyleWeight are α and β, not negative and not both 0.
	ContentWeight, StyleWeight *float64
	// TVWeight is γ, the weight of the total variation, the mean square difference
	// of neighbouring values: it smooths. nil means 0.
	TVWeight *float64
	// StyleWeights blend the style pictures, one weight for each, of which the
	// sum is made 1; empty means equal ones.
	StyleWeights []float64
	// StyleScale is a factor on StyleSize, or on each style picture's own size;
	// 0 means 1.
	StyleScale float64
	// ContentLayers and StyleLayers are named as vgg19.Layers are; empty means
	// the preset's: relu4_2, and relu1_1, relu2_1, relu3_1, relu4_1, relu5_1.
	ContentLayers, StyleLayers []LayerWeight
	// Optimizer is the preset's if empty.
	Optimizer Optimizer
	// LearningRate is Adam's step on pixels in [0,1], or the factor on L-BFGS's
	// steps.
	LearningRate *float64
	// Iterations is the number of steps; 0 evaluates the start and takes none.
	Iterations *int
	// Pooling is vgg19.MaxPooling if empty.
	Pooling vgg19.Pooling
	// Precision is Exact if empty.
	Precision Precision
}

// settings are Options with every choice made.
type settings struct {
	Options
	unit           units
	content, style []weightedLayer
	alpha, beta    float64
	gamma          float64 // of the total variation
	rate           float64
	iterations     int
}

// units say what the paper's costs, as cost.go has them, are multiplied by.
type units int

const (
	paperUnits      units = iota // nothing
	targetUnits                  // costs relative to their target's own size: Balanced
	meanSquareUnits              // mean squares, the style's times 1000/C²: Gatys
)

type weightedLayer struct {
	layer  string
	weight float64
}

// layers names the layers of all terms.
func (s *settings) layers() []string {
	var out []string
	for _, l := range slices.Concat(s.content, s.style) {
		out = append(out, l.layer)
	}
	return out
}

func (o Options) withDefaults() (*settings, error) {
	s := &settings{Options: o}
	rates, optimizer := map[Optimizer]float64{LBFGS: 1}, Adam
	if s.Preset == "" {
		s.Preset = Balanced
	}
	switch s.Preset {
	case Balanced:
		// Each of the five style layers weighs 20 against the content's 1.
		s.unit, s.alpha, s.beta = targetUnits, 1, 100
		s.iterations, rates[Adam] = 300, 0.02
	case Classic:
		s.alpha, s.beta = 10, 40
		s.iterations, rates[Adam] = 500, 2.0/255
	case Gatys:
		// λ is 1/5 on each of five layers, so that β·λ is 1.
		s.unit, s.alpha, s.beta = meanSquareUnits, 1, 5
		s.iterations, rates[Adam] = 500, 0.02
		optimizer = LBFGS
	default:
		return nil, invalid("Preset", "%q is unknown: known are balanced, classic and gatys", s.Preset)
	}
	if s.Optimizer == "" {
		s.Optimizer = optimizer
	}
	if s.Optimizer != Adam && s.Optimizer != LBFGS {
		return nil, invalid("Optimizer", "%q is unknown: known are adam and lbfgs", s.Optimizer)
	}
	s.rate = rates[s.Optimizer]
	for _, n := range []struct {
		field string
		from  *float64
		to    *float64
		zero  bool
	}{
		{"ContentWeight", o.ContentWeight, &s.alpha, true},
		{"StyleWeight", o.StyleWeight, &s.beta, true},
		{"TVWeight", o.TVWeight, &s.gamma, true},
		{"LearningRate", o.LearningRate, &s.rate, false},
	} {
		if n.from == nil {
			continue
		}
		if err := checkNumber(n.field, *n.from, n.zero); err != nil {
			return nil, err
		}
		*n.to = *n.from
	}
	var err error
	if s.content, err = layerWeights("ContentLayers", o.ContentLayers, "relu4_2"); err != nil {
		return nil, err
	}
	if s.style, err = layerWeights("StyleLayers", o.StyleLayers, "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"); err != nil {
		return nil, err
	}
	if s.alpha*total(s.content) == 0 && s.beta*total(s.style) == 0 {
		return nil, invalid("ContentWeight", "and StyleWeight leave nothing to optimise: every weight is 0; give one that is not")
	}
	if err := s.checkStyleWeights(); err != nil {
		return nil, err
	}
	if o.Iterations != nil {
		s.iterations = *o.Iterations
	}
	if s.iterations < 0 {
		return nil, invalid("Iterations", "is %d; 0 or more will do", s.iterations)
	}
	if err := s.checkSizes(); err != nil {
		return nil, err
	}
	if s.Start == "" {
		s.Start = StartContent
	}
	switch s.Start {
	case StartContent, StartNoise, StartGray:
	case StartPicture:
		if err := s.Picture.Check(); err != nil {
			return nil, invalid("Picture", "cannot be started from: %v", err)
		}
	default:
		return nil, invalid("Start", "%q is unknown: known are content, noise, gray and picture", s.Start)
	}
	if s.Pooling == "" {
		s.Pooling = vgg19.MaxPooling
	}
	if s.Pooling != vgg19.MaxPooling && s.Pooling != vgg19.AveragePooling {
		return nil, invalid("Pooling", "%q is unknown: known are max and avg", s.Pooling)
	}
	if s.Precision == "" {
		s.Precision = Exact
	}
	switch s.Precision {
	case Exact, Double:
	case "fast", "tf32", "bf16":
		return nil, invalid("Precision", "%s is not there yet; exact or double will do", s.Precision)
	default:
		return nil, invalid("Precision", "%q is unknown: known are exact and double", s.Precision)
	}
	return s, nil
}

// maxSide is the longest side that picture.MaxPixels lets a square have.
const maxSide = 1 << 14

// checkStyleWeights makes the style pictures' weights' sum 1.
func (s *settings) checkStyleWeights() error {
	sum := 0.0
	for _, w := range s.StyleWeights {
		if err := checkNumber("StyleWeights", w, true); err != nil {
			return err
		}
		sum += w
	}
	if len(s.StyleWeights) > 0 && sum == 0 {
		return invalid("StyleWeights", "are all 0; give one that is not")
	}
	shares := make([]float64, len(s.StyleWeights))
	for i, w := range s.StyleWeights {
		shares[i] = w / sum
	}
	s.StyleWeights = shares
	return nil
}

// checkSizes settles how large the pictures will be.
func (s *settings) checkSizes() error {
	if s.Size == 0 {
		s.Size = DefaultSize
	}
	if s.StyleSize == 0 {
		s.StyleSize = s.Size
	}
	for _, side := range []struct {
		field string
		size  int
	}{{"Size", s.Size}, {"StyleSize", s.StyleSize}} {
		if side.size < OwnSize {
			return invalid(side.field, "is %d; a number of pixels, or 0, will do", side.size)
		}
		if side.size > maxSide {
			return invalid(side.field, "is %d; at most %d pixels will do", side.size, maxSide)
		}
	}
	if s.StyleScale == 0 {
		s.StyleScale = 1
	}
	if err := checkNumber("StyleScale", s.StyleScale, false); err != nil {
		return err
	}
	if float64(s.StyleSize)*s.StyleScale > maxSide {
		return invalid("StyleScale", "makes the style size %.0f; at most %d pixels will do", float64(s.StyleSize)*s.StyleScale, maxSide)
	}
	return nil
}

func checkNumber(field string, v float64, zero bool) error {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return invalid(field, "is %v; a finite number will do", v)
	case v < 0:
		return invalid(field, "is %v; it cannot be negative", v)
	case v == 0 && !zero:
		return invalid(field, "is 0; a positive number will do")
	}
	return nil
}

func layerWeights(field string, given []LayerWeight, preset ...string) ([]weightedLayer, error) {
	if len(given) == 0 {
		for _, name := range preset {
			given = append(given, LayerWeight{Layer: name})
		}
	}
	var out []weightedLayer
	seen := map[string]bool{}
	for _, g := range given {
		if _, err := vgg19.Lookup(g.Layer); err != nil {
			return nil, invalid(field, "names an %v", err)
		}
		if seen[g.Layer] {
			return nil, invalid(field, "names %s twice", g.Layer)
		}
		seen[g.Layer] = true
		w := weightedLayer{g.Layer, 1 / float64(len(given))}
		if g.Weight != nil {
			if err := checkNumber(field, *g.Weight, true); err != nil {
				return nil, err
			}
			w.weight = *g.Weight
		}
		out = append(out, w)
	}
	return out, nil
}

func total(layers []weightedLayer) (sum float64) {
	for _, l := range layers {
		sum += l.weight
	}
	return sum
}

// Validate says whether Stylize can begin with these options; the error
// matches ErrInvalidOption and names the field.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}
