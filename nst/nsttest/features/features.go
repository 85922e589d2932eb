// Package features is what an iteration can be asked for, for the tests that go through all of it.
package features

import (
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
)

// Bands is a mask of vertical bands of grey levels, from 0 to 255.
func Bands(width, height int, levels ...int) *picture.Picture {
	p := picture.New(width, height)
	for i := range p.Pixels {
		p.Pixels[i] = float32(levels[i%width*len(levels)/width]) / 255
	}
	return p
}

// Feature is something that an iteration can be asked for, at 48 pixels.
type Feature struct {
	Options    nst.Options
	Pictures   int  // made together; 0: 1
	Unrecorded bool // no graph can be made of it
}

// All are the features that change what an iteration sends, by name.
func All() map[string]Feature {
	halves, soft := Bands(451, 300, 30, 220), Bands(451, 300, 30, 90, 150, 220)
	styleHalves := []*picture.Picture{Bands(512, 512, 220, 30)}
	held := &nst.Previous{Picture: Bands(48, 32, 30, 90, 150, 220), Weights: make([]float32, 48*32)}
	for i := range held.Weights {
		held.Weights[i] = float32(i%5) / 4
	}
	return map[string]Feature{
		"plain":   {},
		"exact":   {Options: nst.Options{Precision: nst.Exact}},
		"double":  {Options: nst.Options{Precision: nst.Double}},
		"tf32":    {Options: nst.Options{Precision: nst.TF32}},
		"bf16":    {Options: nst.Options{Precision: nst.BF16}},
		"moments": {Options: nst.Options{StyleLoss: nst.MomentsLoss}},
		// The host sees to eigenvalues, and to directions.
		"w2":          {Options: nst.Options{StyleLoss: nst.WassersteinLoss}, Unrecorded: true},
		"swd":         {Options: nst.Options{StyleLoss: nst.SlicedLoss}, Unrecorded: true},
		"nn":          {Options: nst.Options{StyleLoss: nst.NeighboursLoss, StyleRotate: []float64{0, 90}}},
		"similar":     {Options: nst.Options{ContentLoss: nst.SimilarityLoss}},
		"average":     {Options: nst.Options{Pooling: vgg19.AveragePooling}},
		"edges":       {Options: nst.Options{Padding: vgg19.ReplicatePadding}},
		"exact edges": {Options: nst.Options{Padding: vgg19.ReplicatePadding, Precision: nst.Exact}},
		"tv":          {Options: nst.Options{TVWeight: new(1.0)}},
		"classic":     {Options: nst.Options{Preset: nst.Classic}},
		"masks":       {Options: nst.Options{ContentMask: halves, StyleMasks: styleHalves}},
		"soft masks":  {Options: nst.Options{ContentMask: soft, StyleMasks: styleHalves, MaskSoft: true}},
		"bf16 masks":  {Options: nst.Options{ContentMask: halves, StyleMasks: styleHalves, Precision: nst.BF16}},
		"nn masks": {Options: nst.Options{ContentMask: halves, StyleMasks: styleHalves,
			StyleLoss: nst.NeighboursLoss}},
		"bf16 moments": {Options: nst.Options{StyleLoss: nst.MomentsLoss, Precision: nst.BF16}},
		"strength":     {Options: nst.Options{StrengthMask: halves}},
		"gatys":        {Options: nst.Options{Preset: nst.Gatys}},
		"wrap":         {Options: nst.Options{Wrap: nst.WrapXY, TVWeight: new(1.0)}},
		"video":        {Options: nst.Options{Previous: held}},
		"texture":      {Options: nst.Options{ContentWeight: new(0.0), Start: nst.StartFaint}},
		"tiles":        {Options: nst.Options{Tile: "32"}, Unrecorded: true}, // it has several in its hands
		"together":     {Pictures: 3},
	}
}
