package objective

import "github.com/seed9bb5c928/nst/torch"

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

// gather is addTensors of a tile's statistics at a place of a layer: what is of each position
// takes its place.
func gather(sums, part Statistics, at Place) {
	for _, name := range part.names() {
		t := part[name]
		shape := torch.Shape(t)
		if len(shape) < featureDimensions || shape[2] == at.Height && shape[3] == at.Width {
			continue
		}
		if whole, ok := sums[name]; ok {
			torch.Copy(window(whole, at.Top, at.Left, shape[2], shape[3]), t)
		} else {
			sums[name] = torch.Keep(torch.Pad(t, at.Top, at.Left, at.Height, at.Width))
		}
		torch.Close(t)
		delete(part, name)
	}
	addTensors(sums, part)
}

// window is a view of rows×columns positions of maps, from a row and a column.
func window(maps torch.Tensor, top, left, rows, columns int64) torch.Tensor {
	return torch.Slice(torch.Slice(maps, 2, top, top+rows), 3, left, left+columns)
}
