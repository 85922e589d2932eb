package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// eachTensor calls do for the tensors of a tile's part, which it may replace.
func eachTensor[K comparable](of map[K]torch.Tensor, do func(*torch.Tensor)) {
	for k, t := range of {
		do(&t)
		of[k] = t
	}
}

// addTensors adds the tensors of another tile's part to sums; the first ones are taken out
// of it.
func addTensors[K comparable](sums, part map[K]torch.Tensor) {
	for k, t := range part {
		if sum, ok := sums[k]; ok {
			torch.AddInPlace(sum, t, 1)
		} else {
			sums[k], part[k] = t, torch.Tensor{}
		}
	}
}

// gather is addTensors of a tile's statistics at a layer of a picture of width×height: what is
// of each position takes its place.
func gather(sums, part Statistics, tile tiling.Tile, l vgg19.Layer, width, height int) {
	rows, columns := int64(height/l.Stride), int64(width/l.Stride)
	for _, name := range part.names() {
		t := part[name]
		shape := torch.Shape(t)
		if len(shape) < featureDimensions || shape[2] == rows && shape[3] == columns {
			continue
		}
		if whole, ok := sums[name]; ok {
			torch.Copy(tile.Own.Positions(whole, l.Stride).View(whole), t)
		} else {
			top, left := int64(tile.Own.Top/l.Stride), int64(tile.Own.Left/l.Stride)
			sums[name] = torch.Keep(torch.Pad(t, top, left, rows, columns))
		}
		torch.Close(t)
		delete(part, name)
	}
	addTensors(sums, part)
}
