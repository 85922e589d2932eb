package nst

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

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

// Text is Error with fields of Options, also those that Problem speaks of, by the names that a
// function gives them: flags, or options in JSON.
func (e *OptionError) Text(name func(field string) string) string {
	return name(e.Field) + " " + fieldNames.ReplaceAllStringFunc(e.Problem, func(found string) string {
		if strings.HasPrefix(found, `"`) { // what was given
			return found
		}
		return name(found)
	})
}

// fieldNames finds fields of Options in a text, and what is in quotation marks.
var fieldNames = func() *regexp.Regexp {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Options]()) {
		names = append(names, f.Name)
	}
	return regexp.MustCompile(`"[^"]*"|\b(` + strings.Join(names, "|") + `)\b`)
}()

// Error returns the field and the problem.
func (e *OptionError) Error() string { return e.Field + " " + e.Problem }

// Is says that the error is an ErrInvalidOption.
func (e *OptionError) Is(target error) bool { return target == ErrInvalidOption }

func invalid(field, format string, args ...any) error {
	return &OptionError{field, fmt.Sprintf(format, args...)}
}

// Preset names an objective with the weights, optimiser, rate, schedule and
// number of iterations that belong to it.
type Preset string

const (
	// Balanced divides each layer's style cost by its target's own squared norm
	// and the content cost by its target's mean square, so that weights mean
	// the same for every network, size and style, and goes from coarse to fine.
	// It is the default.
	Balanced Preset = "balanced"
	// Classic is the costs as the papers have them (nst/README.md), α 10, β 40, Adam at 2/255.
	Classic Preset = "classic"
	// Gatys is what Gatys published with the paper: mean-square costs, weight 1
	// on the content and 1000/C² on each style layer of C maps, L-BFGS.
	Gatys Preset = "gatys"
)

// Optimizer names the method that changes the pixels.
type Optimizer string

const (
	// Adam is Kingma and Ba's (arXiv:1412.6980), β₁ 0.9, ε 1e-8, β₂ 0.999 (in
	// Balanced 0.99).
	Adam Optimizer = "adam"
	// LBFGS is Liu and Nocedal's limited-memory BFGS, one evaluation an
	// iteration; it remembers 20 steps, each of which takes twice the picture's
	// memory.
	LBFGS Optimizer = "lbfgs"
)

// Scales is a coarse-to-fine schedule: ScalesAuto, ScalesOff, or the longest
// sides one after the other, such as "256,512". The result's size is added to a
// list that does not end in it.
type Scales string

const (
	// ScalesAuto begins near 128 pixels, and each scale is √2 of the one before.
	ScalesAuto Scales = "auto"
	// ScalesOff works at the result's size alone.
	ScalesOff Scales = "off"
)

// Start names the picture that the optimisation starts from.
type Start string

// The pictures to start from.
const (
	StartContent Start = "content" // the content picture
	StartNoise   Start = "noise"   // uniform noise, by Seed
	StartGray    Start = "gray"    // 50 % gray
	StartFaint   Start = "faint"   // 50 % gray with a tenth of the noise
	StartPicture Start = "picture" // Options.Picture, resized if its size differs
)

// StyleLoss names what of a layer's feature maps the style cost compares.
type StyleLoss string

const (
	// GramLoss compares Gram matrices, as Gatys et al. do. It is the default.
	GramLoss StyleLoss = "gram"
	// MomentsLoss compares the means and the Gram matrices of the centred
	// features (their covariance).
	MomentsLoss StyleLoss = "moments"
	// WassersteinLoss compares the Gaussian distributions that have the features'
	// means and covariances by their Wasserstein-2 distance.
	WassersteinLoss StyleLoss = "w2"
	// SlicedLoss compares the features' whole distributions, by the Wasserstein-2
	// distance of their projections on 32 directions.
	SlicedLoss StyleLoss = "swd"
	// NeighboursLoss compares each position with the style's position that is most like
	// it, found anew at each scale (Kolkin et al. 2022, arXiv:2203.13215).
	NeighboursLoss StyleLoss = "nn"
)

// ContentLoss names what of a layer's feature maps the content cost compares.
type ContentLoss string

const (
	// FeatureLoss compares the features at each position, as Gatys et al. do. It is the
	// default.
	FeatureLoss ContentLoss = "features"
	// SimilarityLoss compares how like each other positions are, so that what they are
	// like may change (Kolkin et al. 2019, arXiv:1904.12785). It is not for content with
	// transparent pixels that are kept.
	SimilarityLoss ContentLoss = "similarity"
)

// Wrap is in which directions the picture comes round, so that it can be set beside
// itself without a seam: every convolution, pool and resize sees, beyond one edge, what
// lies at the other. There its sides are rounded to multiples of the deepest layer's
// stride (16 pixels for relu5_1).
type Wrap string

// The directions.
const (
	WrapOff Wrap = "off"
	WrapX   Wrap = "x"  // left and right: a panorama of 360°
	WrapY   Wrap = "y"  // top and bottom
	WrapXY  Wrap = "xy" // both: a texture
)

// Directions are those in which the picture comes round, for torch.
func (w Wrap) Directions() torch.Wrap {
	return torch.Wrap{X: w == WrapX || w == WrapXY, Y: w == WrapY || w == WrapXY}
}

// MaxRotations is how many angles Options.StyleRotate may have.
const MaxRotations = 16

// MaxStyleMargin is the largest Options.StyleMargin.
const MaxStyleMargin = 0.2

// Transfer is what of the style the result has.
type Transfer string

const (
	// TransferStyle is all that the network sees of it.
	TransferStyle Transfer = "style"
	// TransferLuminance is that of lightness alone: the network sees grey pictures, the
	// style's with the mean and the deviation of the content's, and the result has the
	// content's chroma (Gatys et al. 2017, arXiv:1611.07865, section 5).
	TransferLuminance Transfer = "luminance"
	// TransferColor is its colours alone, by picture.MatchColors; of several styles the
	// weighted mean. There is no iteration and no network: see TransferColors.
	TransferColor Transfer = "color"
)

// Color names whose colours the result has.
type Color string

// Whose colours there are.
const (
	ColorStyle   Color = "style"   // the style's, as the transfer makes them
	ColorContent Color = "content" // the result's lightness, the content's chroma: see picture.Recolor
	ColorMatch   Color = "match"   // the styles' colours are matched to the content's before: see picture.MatchColors
)

// Alpha is what becomes of the pictures' transparent pixels.
type Alpha string

const (
	// AlphaKeep has pixels count by how opaque they are, α: the content cost's
	// differences and the Gram matrices' features are multiplied by α at their
	// positions (as with a guide of Gatys et al. 2017), and the result has the
	// content's alpha. It is the default where the content picture has some.
	AlphaKeep Alpha = "keep"
	// AlphaWhite puts the pictures over white.
	AlphaWhite Alpha = "white"
)

// Precision names how the network computes.
type Precision string

const (
	// Fast is float32, on the CPU with Winograd's convolutions (see
	// torch.ConvolutionMode), on CUDA with TF32's. It is the default.
	Fast Precision = "fast"
	// Exact is float32 throughout, with direct convolutions.
	Exact Precision = "exact"
	// TF32 rounds what CUDA's convolutions and Gram matrices multiply to 10 bits of
	// mantissa. It needs a device other than the CPU.
	TF32 Precision = "tf32"
	// BF16 keeps feature maps and weights in bfloat16, half the memory, with 7 bits
	// of mantissa; Gram matrices are summed in float32, and the picture, its
	// gradient and the optimiser stay float32.
	BF16 Precision = "bf16"
	// Double is feature maps, statistics and pictures in float64 (costs are read, and
	// factors rounded, in float32): slow, and there to compare with. A picture on which many
	// activations nearly tie (any start from a photograph) takes, after a few steps, another
	// path in float32, in every implementation.
	Double Precision = "double"
)

// bf16Capability is from which compute capability on a CUDA device knows bfloat16: 8.0, Ampere.
const bf16Capability = 80

// CheckDevice says whether a device computes in the precision: the error matches
// ErrInvalidOption.
func (p Precision) CheckDevice(device torch.Device) error {
	capability := torch.ComputeCapability(device)
	switch {
	case p == TF32 && device == torch.CPU:
		return invalid("Precision", "tf32 is CUDA's, and the device is the CPU; fast or bf16 will do")
	case p == BF16 && capability > 0 && capability < bf16Capability:
		return invalid("Precision", "bf16 needs a card of compute capability 8.0 or higher, and %s is %s; fast or "+
			"exact will do", device, torch.Card(device))
	}
	return nil
}

// scalar is the type of pictures, gradients and costs.
func (p Precision) scalar() torch.ScalarType {
	if p == Double {
		return torch.Float64
	}
	return torch.Float32
}

// network is the type of the network's weights and feature maps.
func (p Precision) network() torch.ScalarType {
	if p == BF16 {
		return torch.BFloat16
	}
	return p.scalar()
}

// DefaultSize is the longest side of the result where Options names none.
const DefaultSize = 512

// LayerWeight names a layer of the network and its weight among the content or
// style layers. As text it is "relu4_2" or "relu4_2=0.5".
type LayerWeight struct {
	Layer string
	// Weight is λ_l; nil means 1/n, n being the number of layers named.
	Weight *float64
}

// MarshalText writes the layer as UnmarshalText reads it.
func (l LayerWeight) MarshalText() ([]byte, error) {
	text := l.Layer
	if l.Weight != nil {
		text += "=" + strconv.FormatFloat(*l.Weight, 'g', -1, 64)
	}
	return []byte(text), nil
}

// UnmarshalText reads "relu4_2" or "relu4_2=0.5".
func (l *LayerWeight) UnmarshalText(text []byte) error {
	name, weight, weighted := strings.Cut(string(text), "=")
	*l = LayerWeight{Layer: strings.TrimSpace(name)}
	if weighted {
		w, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
		if err != nil {
			return fmt.Errorf("the weight in %q is no number", text)
		}
		l.Weight = &w
	}
	return nil
}

// Options chooses what Stylize does. The zero value is the default; nil
// pointers mean what the preset has. As JSON it is all but pictures, named as
// the command line's flags are.
type Options struct {
	// Preset is Balanced if empty.
	Preset Preset `json:"preset,omitempty"`
	// Size is the longest side of the result in pixels: nil means DefaultSize,
	// 0 the content picture's own.
	Size *int `json:"size,omitempty"`
	// StyleSize is the longest side at which style pictures are used: nil means
	// as Size (their own if that is 0), 0 each picture's own.
	StyleSize *int `json:"style_size,omitempty"`
	// StyleScale is a factor on StyleSize, or on each style picture's own size;
	// nil means 1.
	StyleScale *float64 `json:"style_scale,omitempty"`
	// StyleWeights blend the style pictures, one weight for each, of which the
	// sum is made 1; empty means equal ones.
	StyleWeights []float64 `json:"style_weights,omitempty"`
	// Scales is ScalesAuto for Balanced and ScalesOff else if empty. A style
	// picture shrinks as the result does; the content's weight at a scale is
	// ContentWeight times the result's size over the scale's.
	Scales Scales `json:"scales,omitempty"`
	// Start is StartContent if empty.
	Start Start `json:"init,omitempty"`
	// Picture is where StartPicture starts. ScalesAuto then leaves out the
	// scales that are smaller than it.
	Picture *picture.Picture `json:"-"`
	// Seed is of everything random: the same seed gives the same result, bit
	// for bit, on one machine with one number of threads.
	Seed uint64 `json:"seed,omitempty"`
	// ContentWeight and StyleWeight are α and β, not negative and not both 0. nil means the
	// preset's: Balanced has some for each loss, the others for GramLoss, MomentsLoss and
	// FeatureLoss alone.
	ContentWeight *float64 `json:"content_weight,omitempty"`
	StyleWeight   *float64 `json:"style_weight,omitempty"`
	// Strength is another way to give the style weight, from 0 to 1: at 0.5 it is the
	// preset's, at 0 a tenth and at 1 ten times that, each step alike a factor. Resolve
	// makes it StyleWeight.
	Strength *float64 `json:"strength,omitempty"`
	// TVWeight is γ, the weight of the total variation, the mean square difference
	// of neighbouring values: it smooths. nil means 0.
	TVWeight *float64 `json:"tv_weight,omitempty"`
	// ContentLayers and StyleLayers are named as vgg19.Layers are; empty means
	// the preset's: relu4_2, and relu1_1, relu2_1, relu3_1, relu4_1, relu5_1. Balanced has
	// no relu5_1, by which the painting's objects are copied.
	ContentLayers []LayerWeight `json:"content_layers,omitempty"`
	StyleLayers   []LayerWeight `json:"style_layers,omitempty"`
	// StyleFor is, for each style picture, which of the StyleLayers it is for: coarse
	// structures of one, strokes of another. An empty list is all of them, and each layer
	// needs a style; empty altogether: all are for all.
	StyleFor [][]string `json:"style_for,omitempty"`
	// StyleRotate are the angles in degrees, clockwise, at which each style picture is
	// used: with several its strokes run in all of these directions. Empty: as it is. It
	// is not for styles with masks.
	StyleRotate []float64 `json:"style_rotate,omitempty"`
	// StyleMargin is the part of each style picture's longest side that is cut off at each
	// of its edges, from 0 to MaxStyleMargin, but at most a quarter of its shorter side:
	// there a scan often has the canvas or the frame, which the result would have along
	// its own edges.
	StyleMargin *float64 `json:"style_margin,omitempty"`
	// StyleLoss is GramLoss if empty, and ContentLoss FeatureLoss.
	StyleLoss   StyleLoss   `json:"style_loss,omitempty"`
	ContentLoss ContentLoss `json:"content_loss,omitempty"`
	// Optimizer is the preset's if empty.
	Optimizer Optimizer `json:"optimizer,omitempty"`
	// LearningRate is Adam's step on pixels in [0,1], or the factor on L-BFGS's
	// steps.
	LearningRate *float64 `json:"learning_rate,omitempty"`
	// Iterations is the number of steps in all scales together; 0 evaluates the
	// start at the result's size and takes none.
	Iterations *int `json:"iterations,omitempty"`
	// Pooling is vgg19.MaxPooling if empty. Balanced doubles what average
	// pooling gives: see vgg19.RescaledAveragePooling.
	Pooling vgg19.Pooling `json:"pooling,omitempty"`
	// Padding is vgg19.ZeroPadding if empty.
	Padding vgg19.Padding `json:"padding,omitempty"`
	// Transfer is TransferStyle if empty.
	Transfer Transfer `json:"transfer,omitempty"`
	// Wrap is WrapOff if empty.
	Wrap Wrap `json:"wrap,omitempty"`
	// Color is ColorStyle if empty.
	Color Color `json:"color,omitempty"`
	// Alpha is AlphaKeep, if empty, where the content picture has transparent pixels,
	// and else AlphaWhite.
	Alpha Alpha `json:"alpha,omitempty"`
	// ContentMask and StyleMasks, one for each style picture, name regions by
	// their grey levels, 0 to 255: each region of the content takes its style
	// from the regions of that level in the styles. A mask has its picture's
	// aspect, in any size. Both or neither.
	ContentMask *picture.Picture   `json:"-"`
	StyleMasks  []*picture.Picture `json:"-"`
	// MaskSoft has the grey levels of the content's mask that lie between two regions'
	// belong to both, the more the nearer: the styles blend there.
	MaskSoft bool `json:"mask_soft,omitempty"`
	// StrengthMask is how strong the style is by place: where it is black the style cost
	// does not reach, and where it is grey a position counts by the square of its level
	// (0 to 1), as with transparent pixels. It has the content's aspect, in any size.
	StrengthMask *picture.Picture `json:"-"`
	// Previous is what the result is held to where it is a frame of a video, and
	// TemporalWeight δ, how much: nil means the preset's.
	Previous       *Previous `json:"-"`
	TemporalWeight *float64  `json:"temporal_weight,omitempty"`
	// Precision is Fast if empty.
	Precision Precision `json:"precision,omitempty"`
	// Tile is TileAuto if empty. MemoryLimit is what the process may use of the
	// host's memory where it works on the CPU, or of each device's elsewhere; 0
	// means what is free. It is kept to by smaller tiles, and, if those do not do,
	// by fewer steps that L-BFGS remembers.
	Tile        Tile  `json:"tile,omitempty"`
	MemoryLimit Bytes `json:"memory_limit,omitempty"`
	// Autotune is AutotuneAuto if empty. It means nothing but to CUDA.
	Autotune Autotune `json:"-"`
	// Resume is where an earlier run of the same options and pictures is gone
	// on from.
	Resume *Checkpoint `json:"-"`
}

// Previous is what is known of a frame by the frames before it: see package video.
type Previous struct {
	// Picture is their results, moved to where they are now. It has the result's aspect.
	Picture *picture.Picture
	// Weights is how well each of its pixels is known, from 0 (not at all) to 1, row by row.
	Weights []float32
}

// Autotune is whether cuDNN tries its algorithms for each shape of a scale, and keeps
// the fastest, or takes what it reckons to be. To try takes seconds a scale.
type Autotune string

const (
	// AutotuneAuto tries at scales with work enough to win back the time: the last
	// of a long run in large. Precisions that give the same bits in every run never
	// do.
	AutotuneAuto Autotune = "auto"
	// AutotuneOn tries at every scale.
	AutotuneOn Autotune = "on"
	// AutotuneOff never tries.
	AutotuneOff Autotune = "off"
)

// autotunePays is how many pixels times iterations a scale has from which on to try
// is taken to pay: on the largest cards two minutes of work. An estimate: about 39
// shapes, ten algorithms each, for a few per cent.
const autotunePays = 2e10

// autotunes says whether algorithms are tried at a scale, for so many pictures.
func (s *settings) autotunes(at scale, pictures int) bool {
	work := float64(at.width) * float64(at.height) * float64(at.iterations) * float64(pictures)
	return !s.repeats() && (s.Autotune == AutotuneOn || s.Autotune == AutotuneAuto && work >= autotunePays)
}

// Texture is what Stylize makes a texture of width×height of: a picture without content,
// and the options with no weight on content and without what is about content, its colours
// and masks. Where Start is empty, or the content, it is faint noise (much of full noise the
// costs would not take away). In a texture no style picture is enlarged, but by StyleScale.
// The error is of a size that no picture has.
func Texture(o Options, width, height int) (*picture.Picture, Options, error) {
	o.Size, o.ContentWeight = new(max(width, height)), new(0.0)
	if o.Start == "" || o.Start == StartContent { // there is none
		o.Start = StartFaint
	}
	o.Color, o.Alpha, o.Transfer, o.MaskSoft = "", "", "", false
	if min(width, height) < 1 || int64(width)*int64(height) > picture.MaxPixels {
		return nil, o, invalid("Size", "makes a texture of %d×%d; at least 1 and at most %d million pixels will do",
			width, height, picture.MaxPixels/1_000_000)
	}
	return picture.New(width, height), o, nil
}

// Validate says whether Stylize can begin with these options; the error
// matches ErrInvalidOption and names the field.
func (o Options) Validate() error {
	_, err := o.withDefaults()
	return err
}

// Resolve returns the options with every choice made that the zero value leaves
// to the preset, or Validate's error.
func (o Options) Resolve() (Options, error) {
	s, err := o.withDefaults()
	if err != nil {
		return Options{}, err
	}
	return s.Options, nil
}

// record is what a picture's metadata say of how it was made.
type record struct {
	Program string  `json:"program"`
	Options Options `json:"options"`
}

// program is who writes records.
const program = "nst"

// Record is the options, resolved, as text of printable ASCII for a picture's
// metadata (picture.Encoding.Comment), which ReadRecord reads.
func (o Options) Record() (string, error) {
	resolved, err := o.Resolve()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(record{program, resolved})
	if err == nil && strings.ContainsFunc(string(text), func(r rune) bool { return r > '~' }) {
		err = errors.New("the settings are not ASCII")
	}
	return string(text), err
}

// ReadRecord returns the options of a record; ok is false if the text is none.
func ReadRecord(text string) (o Options, ok bool) {
	var r record
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Program != program {
		return Options{}, false
	}
	if r.Options.StyleMargin == nil { // it is older than the option
		r.Options.StyleMargin = new(0.0)
	}
	return r.Options, true
}
