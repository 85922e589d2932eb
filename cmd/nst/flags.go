package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/spf13/pflag"
)

// transferFlags are the flags that make a transfer's options. A flag that is
// not given leaves the option as it is: the default, or that of
// --settings-from.
type transferFlags struct {
	flags *pflag.FlagSet
	ctx   context.Context // of the command, while its options are made
	// apply sets the option of a flag that was given, by the flag's name.
	apply map[string]func(*nst.Options) error

	contentMask  string
	strengthMask string
	styleMasks   []string
	settingsFrom string
	device       string
	lowPriority  bool
	model        string
	bits         int
	quality      int
	stdin        bool // was read
	remote       bool // another machine computes: nothing is asked of this one's libtorch
}

// setting adds a flag whose value is an option.
func setting[T any](t *transferFlags, name, help string, add func(*pflag.FlagSet, string, string) *T,
	set func(*nst.Options, T) error) {
	value := add(t.flags, name, help)
	t.apply[name] = func(o *nst.Options) error { return set(o, *value) }
}

func text(f *pflag.FlagSet, name, help string) *string    { return f.String(name, "", help) }
func list(f *pflag.FlagSet, name, help string) *[]string  { return f.StringSlice(name, nil, help) }
func count(f *pflag.FlagSet, name, help string) *int      { return f.Int(name, 0, help) }
func number(f *pflag.FlagSet, name, help string) *float64 { return f.Float64(name, 0, help) }

// choice adds a flag for an option that is one of some words.
func choice[T ~string](t *transferFlags, name, help string, field func(*nst.Options) *T) {
	setting(t, name, help, text, func(o *nst.Options, v string) error { *field(o) = T(v); return nil })
}

// optional adds a flag for an option that is a pointer.
func optional[T any](t *transferFlags, name, help string, add func(*pflag.FlagSet, string, string) *T,
	field func(*nst.Options) **T) {
	setting(t, name, help, add, func(o *nst.Options, v T) error { *field(o) = &v; return nil })
}

func layers(t *transferFlags, name, help string, field func(*nst.Options) *[]nst.LayerWeight) {
	setting(t, name, help, list, func(o *nst.Options, given []string) error {
		out := make([]nst.LayerWeight, len(given))
		for i, g := range given {
			if err := out[i].UnmarshalText([]byte(g)); err != nil {
				return usage("--%s: %w", name, err)
			}
		}
		*field(o) = out
		return nil
	})
}

func newTransferFlags(f *pflag.FlagSet) *transferFlags {
	t := &transferFlags{flags: f, apply: map[string]func(*nst.Options) error{}}
	optional(t, "size", "longest side of the result; 0 keeps the content picture's own size (default 512)", count,
		func(o *nst.Options) **int { return &o.Size })
	optional(t, "style-size", "longest side of each style picture; 0 keeps its own size (default: as --size)", count,
		func(o *nst.Options) **int { return &o.StyleSize })
	optional(t, "style-scale", "factor on the style size (default 1)", number,
		func(o *nst.Options) **float64 { return &o.StyleScale })
	setting(t, "style-for", "which of the style layers a style picture is for: relu3_1,relu4_1; once for each style "+
		"picture, all being all of them (default: all)",
		func(f *pflag.FlagSet, name, help string) *[]string { return f.StringArray(name, nil, help) },
		func(o *nst.Options, given []string) error {
			o.StyleFor = nil
			for _, one := range given {
				var names []string
				if one != "all" {
					names = strings.Split(one, ",")
				}
				o.StyleFor = append(o.StyleFor, names)
			}
			return nil
		})
	setting(t, "style-rotate", "angles in degrees, clockwise, at which the style pictures are used: a,b,…",
		func(f *pflag.FlagSet, name, help string) *[]float64 { return f.Float64Slice(name, nil, help) },
		func(o *nst.Options, v []float64) error { o.StyleRotate = v; return nil })
	optional(t, "style-margin", "the part of each style picture's longest side that is cut off at each edge, 0 to 0.2 "+
		"(default: the preset's)", number, func(o *nst.Options) **float64 { return &o.StyleMargin })
	setting(t, "style-weights", "blend of several styles: a weight for each (default: equal)",
		func(f *pflag.FlagSet, name, help string) *[]float64 { return f.Float64Slice(name, nil, help) },
		func(o *nst.Options, v []float64) error { o.StyleWeights = v; return nil })
	setting(t, "init", "where the picture starts: content, noise, gray, faint (gray and a little noise) or a "+
		"picture file (default content)", text,
		func(o *nst.Options, v string) (err error) {
			switch o.Start = nst.Start(v); o.Start {
			case nst.StartContent, nst.StartNoise, nst.StartGray, nst.StartFaint:
				return nil
			}
			o.Start = nst.StartPicture
			if o.Picture, err = t.openPicture(t.ctx, v); err != nil {
				return fmt.Errorf("--init (content, noise, gray, faint or a picture file): %w", err)
			}
			return nil
		})
	setting(t, "seed", "of everything random", func(f *pflag.FlagSet, name,
		help string) *uint64 {
		return f.Uint64(name, 0, help)
	},
		func(o *nst.Options, v uint64) error { o.Seed = v; return nil })
	choice(t, "preset", "objective, weights, optimizer, rate and schedule together: balanced, classic or gatys "+
		"(default balanced)", func(o *nst.Options) *nst.Preset { return &o.Preset })
	optional(t, "content-weight", "weight α of the content cost (default: the preset's)", number,
		func(o *nst.Options) **float64 { return &o.ContentWeight })
	optional(t, "style-weight", "weight β of the style cost (default: the preset's)", number,
		func(o *nst.Options) **float64 { return &o.StyleWeight })
	optional(t, "strength", "the style weight in even steps: 0 little, 0.5 the preset's, 1 much", number,
		func(o *nst.Options) **float64 { return &o.Strength })
	optional(t, "tv-weight", "weight of the total variation, which smooths (default 0)", number,
		func(o *nst.Options) **float64 { return &o.TVWeight })
	layers(t, "content-layers", "content layers, each with its weight if wanted: relu4_2[=w],… (default: the preset's)",
		func(o *nst.Options) *[]nst.LayerWeight { return &o.ContentLayers })
	layers(t, "style-layers", "style layers: relu1_1[=w],… (default: the preset's)",
		func(o *nst.Options) *[]nst.LayerWeight { return &o.StyleLayers })
	choice(t, "style-loss", "what of a layer is compared: gram; moments: mean and Gram matrix of the centred "+
		"features; w2: the Wasserstein distance of their Gaussians; swd: of their projections; nn: each position with "+
		"the style's most like it (default gram)",
		func(o *nst.Options) *nst.StyleLoss { return &o.StyleLoss })
	choice(t, "content-loss", "what of a layer is compared: features, place by place, or similarity: how like each "+
		"other the places are (default features)", func(o *nst.Options) *nst.ContentLoss { return &o.ContentLoss })
	choice(t, "optimizer", "adam or lbfgs (default: the preset's)",
		func(o *nst.Options) *nst.Optimizer { return &o.Optimizer })
	optional(t, "learning-rate", "step of Adam on pixels in [0,1], or factor on L-BFGS's steps (default: the preset's)",
		number, func(o *nst.Options) **float64 { return &o.LearningRate })
	optional(t, "iterations", "number of steps, in all scales together; 0 evaluates the start, writes it and stops "+
		"(default: the preset's)", count, func(o *nst.Options) **int { return &o.Iterations })
	setting(t, "scales", "coarse to fine: auto, off, or the longest sides one after the other: a,b,… (default: the "+
		"preset's)", text,
		func(o *nst.Options, v string) error { o.Scales = nst.Scales(v); return nil })
	choice(t, "pooling", "max or avg (default max)", func(o *nst.Options) *vgg19.Pooling { return &o.Pooling })
	choice(t, "padding", "beyond the picture's edge: zeros or replicate (default zeros)",
		func(o *nst.Options) *vgg19.Padding { return &o.Padding })
	choice(t, "transfer", "what of the style: style; luminance: of lightness alone, with the content's chroma; color: "+
		"its colours alone, at once (default style)", func(o *nst.Options) *nst.Transfer { return &o.Transfer })
	choice(t, "wrap", "in which directions the result can be set beside itself without a seam: off, x, y or xy "+
		"(default off)", func(o *nst.Options) *nst.Wrap { return &o.Wrap })
	choice(t, "color", "whose colours: style, content (lightness alone is styled) or match (the style's are "+
		"matched to the content's before) (default style)", func(o *nst.Options) *nst.Color { return &o.Color })
	choice(t, "alpha", "transparent pixels: keep (they add nothing to the costs, and the result has the content's "+
		"alpha) or white (over white) (default: keep where the content has some and the result's format can have it)",
		func(o *nst.Options) *nst.Alpha { return &o.Alpha })
	choice(t, "tile", "side of the tiles that a picture is evaluated in; auto: the whole picture if it fits the "+
		"memory; off: the whole picture (default auto)", func(o *nst.Options) *nst.Tile { return &o.Tile })
	setting(t, "memory-limit", "the memory to keep to, such as 2G: of the process on the CPU, of each device "+
		"elsewhere (default: what is free)", text,
		func(o *nst.Options, v string) error {
			if err := o.MemoryLimit.UnmarshalText([]byte(v)); err != nil {
				return usage("--memory-limit: %w", err)
			}
			return nil
		})
	f.StringVar(&t.contentMask, "content-mask", "", "regions of the content picture, by grey level")
	f.StringArrayVar(&t.styleMasks, "style-mask", nil,
		"regions of the style picture that style those of the same level; once for each style picture")
	setting(t, "mask-soft", "grey levels of the content's mask between two regions' belong to both: the styles blend",
		func(f *pflag.FlagSet, name, help string) *bool { return f.Bool(name, false, help) },
		func(o *nst.Options, v bool) error { o.MaskSoft = v; return nil })
	f.StringVar(&t.strengthMask, "strength-mask", "", "how strong the style is by place: none where it is black, all "+
		"where it is white")
	choice(t, "precision", "fast: float32, convolutions by Winograd's method (CUDA: TF32); exact: direct float32; "+
		"tf32 (CUDA); bf16; double: float64, to compare with (default fast)",
		func(o *nst.Options) *nst.Precision { return &o.Precision })
	choice(t, "autotune", "CUDA: try the libraries' algorithms for each shape and keep the fastest: auto (where "+
		"the run is long enough), on or off (default auto)", func(o *nst.Options) *nst.Autotune { return &o.Autotune })
	f.StringVar(&t.settingsFrom, "settings-from", "",
		"a picture of nst's: use the settings it was made with, but for the flags given")
	f.StringVar(&t.device, "device", "auto",
		"auto, cpu, cuda or cuda:N; several, with commas between, share a picture's tiles; cpu:N: N workers on the CPU")
	f.StringVar(&t.model, "model", "", "a TorchScript feature network (default: the default VGG-19)")
	f.IntVar(&t.bits, "bits", 8, "bits per channel: 8, or 16 for .png and .tif")
	f.IntVar(&t.quality, "quality", 0, "of .jpg, .webp and .avif, 1 to 100 (default 95)")
	return t
}

// options are those of --settings-from and the flags given.
func (t *transferFlags) options(ctx context.Context) (o nst.Options, err error) {
	t.ctx = ctx
	if t.settingsFrom != "" {
		if o, err = recordedSettings(ctx, t.settingsFrom); err != nil {
			return o, fmt.Errorf("--settings-from: %w", err)
		}
	}
	t.flags.Visit(func(f *pflag.Flag) {
		if set, ok := t.apply[f.Name]; ok && err == nil {
			err = set(&o)
		}
	})
	if err != nil {
		return o, err
	}
	// A flag that is given comes before what a record has in other words.
	if (t.flags.Changed("strength") || t.flags.Changed("style-loss")) && !t.flags.Changed("style-weight") {
		o.StyleWeight = nil
	}
	if t.flags.Changed("content-loss") && !t.flags.Changed("content-weight") {
		o.ContentWeight = nil
	}
	if t.flags.Changed("transfer") && !t.flags.Changed("color") {
		o.Color = ""
	}
	if o.Start == nst.StartPicture && o.Picture == nil {
		return o, usage("--settings-from: %s was started from a picture; give it with --init", t.settingsFrom)
	}
	if t.contentMask != "" {
		if o.ContentMask, err = t.openPicture(ctx, t.contentMask); err != nil {
			return o, fmt.Errorf("--content-mask: %w", err)
		}
	}
	if t.strengthMask != "" {
		if o.StrengthMask, err = t.openPicture(ctx, t.strengthMask); err != nil {
			return o, fmt.Errorf("--strength-mask: %w", err)
		}
	}
	for _, path := range t.styleMasks {
		m, err := t.openPicture(ctx, path)
		if err != nil {
			return o, fmt.Errorf("--style-mask: %w", err)
		}
		o.StyleMasks = append(o.StyleMasks, m)
	}
	return o, o.Validate()
}

// recordedSettings reads the options that a picture's metadata tell of.
func recordedSettings(ctx context.Context, path string) (o nst.Options, err error) {
	comment, err := decoders.Comment(ctx, path)
	if err != nil {
		return o, err
	}
	o, ok := nst.ReadRecord(comment)
	if !ok {
		return o, usage("%s says nothing of how it was made; nst writes that into its pictures", path)
	}
	return o, nil
}

// encoding is how results are written.
func (t *transferFlags) encoding(o nst.Options) (picture.Encoding, error) {
	comment, err := o.Record()
	return picture.Encoding{Bits: t.bits, Quality: t.quality, Comment: comment}, err
}
