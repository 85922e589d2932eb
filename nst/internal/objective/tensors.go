package objective

import (
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/torch"
)

// eachTensor calls do for the tensors of a tile's part, which it may replace.
func eachTensor[K comparable](of map[K]torch.Tensor, do func(*torch.Tensor)) {
	for k, t := range of {
		do(&t)
		of[k] = t
	}
}

// local returns the tensors that do returns, in the caller's scope, and releases all else that
// it makes.
func local[P tiling.Part](do func() P) (made P) {
	torch.Within(func() {
		made = do()
		made.EachTensor(func(t *torch.Tensor) { torch.Keep(*t) })
	})
	made.EachTensor(func(t *torch.Tensor) { torch.Rejoin(*t) })
	return made
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

// gather is addTensors of a tile's statistics at a place of a layer: what is of each position
// takes its place.
func gather(sums, part Statistics, at Place) {
	for _, name := range part.names() {
		t := part[name]
		shape := torch.Shape(t)
		if len(shape) < featureDimensions || shape[2] == at.Height && shape[3] == at.Width {
			continue
		}
		sums[name] = placed(sums[name], t, at.Top, at.Left, at.Height, at.Width)
		torch.Close(t)
		delete(part, name)
	}
	addTensors(sums, part)
}

// placed is the whole maps of height×width, which are kept, with a part at a row and a column.
// Without the whole it is made.
func placed(whole, part torch.Tensor, top, left, height, width int64) torch.Tensor {
	if whole.T == nil {
		return torch.Keep(torch.Pad(part, top, left, height, width))
	}
	shape := torch.Shape(part)
	torch.Copy(window(whole, top, left, shape[2], shape[3]), part)
	return whole
}

// window is a view of rows×columns positions of maps, from a row and a column.
func window(maps torch.Tensor, top, left, rows, columns int64) torch.Tensor {
	return torch.Slice(torch.Slice(maps, 2, top, top+rows), 3, left, left+columns)
}
