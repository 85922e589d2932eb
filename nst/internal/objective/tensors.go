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
