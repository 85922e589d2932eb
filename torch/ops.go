package torch

// #include "csrc/nsttorch.h"
import "C"

import "github.com/wangkuiyi/gotorch"

// Add returns a + b.
func Add(a, b Tensor) Tensor {
	return borrow("add", func() Tensor { return gotorch.Add(a, b, 1) }, a, b)
}

// AddScaled returns a + factor·b.
func AddScaled(a, b Tensor, factor float32) Tensor {
	return borrow("add", func() Tensor { return gotorch.Add(a, b, factor) }, a, b)
}

// Sub returns a − b.
func Sub(a, b Tensor) Tensor {
	return borrow("sub", func() Tensor { return gotorch.Sub(a, b, 1) }, a, b)
}

// Mul returns the product of a and b, element by element.
func Mul(a, b Tensor) Tensor {
	return borrow("mul", func() Tensor { return gotorch.Mul(a, b) }, a, b)
}

// MM returns the matrix product of a [n,k] and b [k,m].
func MM(a, b Tensor) Tensor {
	return borrow("mm", func() Tensor { return gotorch.MM(a, b) }, a, b)
}

// Sum returns the sum of all elements as a scalar.
func Sum(t Tensor) Tensor {
	return borrow("sum", func() Tensor { return gotorch.Sum(t) }, t)
}

// Transpose returns a view with two dimensions swapped.
func Transpose(t Tensor, dim0, dim1 int64) Tensor {
	return borrow("transpose", func() Tensor { return gotorch.Transpose(t, dim0, dim1) }, t)
}

// View returns a tensor of other sizes over the same elements, which must lie
// in an order that allows it.
func View(t Tensor, sizes ...int64) Tensor {
	return borrow("view", func() Tensor { return gotorch.View(t, sizes...) }, t)
}

// Flatten returns t with its dimensions from start to end made one: a view
// where the elements' order allows it.
func Flatten(t Tensor, start, end int64) Tensor {
	return borrow("flatten", func() Tensor { return gotorch.Flatten(t, start, end) }, t)
}

// Stack joins tensors of equal sizes along a new dimension.
func Stack(tensors []Tensor, dim int64) Tensor {
	if len(tensors) == 0 {
		panic(&Error{Op: "stack", Message: "there are no tensors to stack"})
	}
	return borrow("stack", func() Tensor { return gotorch.Stack(tensors, dim) }, tensors...)
}

// Detach returns t outside the graph of automatic differentiation, over the
// same memory.
func Detach(t Tensor) Tensor {
	return borrow("detach", func() Tensor { return t.Detach() }, t)
}

// Scale returns factor·t.
func Scale(t Tensor, factor float64) Tensor {
	return make1("scale", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_scale(handle(t), C.double(factor), out)
	}, t)
}

// ScaleInPlace multiplies t by factor.
func ScaleInPlace(t Tensor, factor float64) {
	change("scale_", func() *C.char { return C.nst_tensor_scale_in_place(handle(t), C.double(factor)) }, t)
}

// Pow returns t with each element raised to exponent.
func Pow(t Tensor, exponent float64) Tensor {
	return make1("pow", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_pow(handle(t), C.double(exponent), out)
	}, t)
}

// ClampInPlace limits t's elements to [low, high], outside automatic
// differentiation.
func ClampInPlace(t Tensor, low, high float64) {
	change("clamp_", func() *C.char { return C.nst_tensor_clamp_in_place(handle(t), C.double(low), C.double(high)) }, t)
}

// LerpInPlace moves t towards target, of the same sizes: t becomes
// t + weight·(target − t).
func LerpInPlace(t, target Tensor, weight float64) {
	change("lerp_", func() *C.char { return C.nst_tensor_lerp_in_place(handle(t), handle(target), C.double(weight)) },
		t, target)
}

// AvgPool2d returns maps [N,C,H,W] at half the size, each value the mean of 2×2; a last odd row or column is left out.
func AvgPool2d(t Tensor) Tensor {
	return make1("avg_pool2d", func(out *C.nst_tensor) *C.char { return C.nst_tensor_avg_pool2d(handle(t), out) }, t)
}

// Flip returns t with the order of one dimension reversed.
func Flip(t Tensor, dim int64) Tensor {
	return make1("flip", func(out *C.nst_tensor) *C.char { return C.nst_tensor_flip(handle(t), C.int64_t(dim), out) },
		t)
}

// Slice returns a view of the positions [start, end) of one dimension.
func Slice(t Tensor, dim, start, end int64) Tensor {
	return make1("slice", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_slice(handle(t), C.int64_t(dim), C.int64_t(start), C.int64_t(end), out)
	}, t)
}

// Bmm returns the matrix products of a [N,n,k] and b [N,k,m].
func Bmm(a, b Tensor) Tensor {
	return make1("bmm", func(out *C.nst_tensor) *C.char { return C.nst_tensor_bmm(handle(a), handle(b), out) }, a, b)
}

// Eigh returns the eigenvalues [N,n], in ascending order, and the eigenvectors [N,n,n], as columns, of symmetric
// matrices t [N,n,n], of which the lower triangles are read. Of matrices whose values are no numbers all are NaN.
func Eigh(t Tensor) (values, vectors Tensor) {
	var v C.nst_tensor
	values = make1("eigh", func(out *C.nst_tensor) *C.char { return C.nst_tensor_eigh(handle(t), out, &v) }, t)
	return values, adopt(v)
}

// Quantiles returns count quantiles [N,K,count] of values x [N,K,P], those at (i+½)/count,
// linear between values. weights [N,P] have the sum 1; the zero Tensor: all are alike.
func Quantiles(x, weights Tensor, count int) Tensor {
	inputs, w := optional([]Tensor{x}, weights)
	return make1("quantiles", func(out *C.nst_tensor) *C.char {
		return C.nst_quantiles(handle(x), w, C.int64_t(count), out)
	}, inputs...)
}

// QuantileDifferences returns by what values x [N,K,P], weighted as Quantiles has it,
// differ from the quantiles [N,K,Q] of another distribution at their own ranks: what moves
// the one distribution into the other along a line.
func QuantileDifferences(x, weights, quantiles Tensor) Tensor {
	inputs, w := optional([]Tensor{x}, weights)
	return make1("quantile_differences", func(out *C.nst_tensor) *C.char {
		return C.nst_quantile_differences(handle(x), w, handle(quantiles), out)
	}, append(inputs, quantiles)...)
}

// optional adds a tensor that may be the zero Tensor to inputs, and is its handle.
func optional(inputs []Tensor, t Tensor) ([]Tensor, C.nst_tensor) {
	if t.T == nil {
		return inputs, nil
	}
	check("optional", t)
	return append(inputs, t), handle(t)
}

// Units returns features f − mean, of f [N,C,P], as directions, each divided by its length, or
// by 1e-4 of the mean's if that is longer, and what they were divided by [N,1,P]: what is the
// mean but for rounding has no direction. The zero Tensor for mean is 0.
func Units(f, mean Tensor) (units, lengths Tensor) {
	var l C.nst_tensor
	inputs, m := optional([]Tensor{f}, mean)
	units = make1("units", func(out *C.nst_tensor) *C.char { return C.nst_units(handle(f), m, &l, out) }, inputs...)
	return units, adopt(l)
}

// UnitsBackwardInPlace makes ∂J/∂units ∂J/∂f, by what Units returned. The units are used up.
func UnitsBackwardInPlace(gradient, units, lengths Tensor) {
	change("units_backward_", func() *C.char {
		return C.nst_units_backward_in_place(handle(gradient), handle(units), handle(lengths))
	}, gradient, units, lengths)
}

// Nearest returns, for each column of queries [D,P], which column of candidates [D,R] has the
// largest product with it: places [P], whole numbers. It holds the products of some queries
// at a time, in at most 64 MiB.
func Nearest(queries, candidates Tensor) Tensor {
	return make1("nearest", func(out *C.nst_tensor) *C.char {
		return C.nst_nearest(handle(queries), handle(candidates), out)
	}, queries, candidates)
}

// IndexSelect returns those places of one dimension of t that index [n], whole numbers, names.
func IndexSelect(t Tensor, dim int64, index Tensor) Tensor {
	return make1("index_select", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_index_select(handle(t), C.int64_t(dim), handle(index), out)
	}, t, index)
}

// Every returns a view of every step-th place of one dimension, from the first on.
func Every(t Tensor, dim, first, step int64) Tensor {
	return make1("every", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_every(handle(t), C.int64_t(dim), C.int64_t(first), C.int64_t(step), out)
	}, t)
}

// PixelUnshuffle returns maps [N,C,factor·H,factor·W] as [N,C·factor²,H,W]: the positions of
// each block of factor×factor become maps, which of each map lie together.
func PixelUnshuffle(t Tensor, factor int64) Tensor {
	return make1("pixel_unshuffle", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_pixel_unshuffle(handle(t), C.int64_t(factor), out)
	}, t)
}

// PixelShuffle is PixelUnshuffle's inverse.
func PixelShuffle(t Tensor, factor int64) Tensor {
	return make1("pixel_shuffle", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_pixel_shuffle(handle(t), C.int64_t(factor), out)
	}, t)
}

// Diagonal returns a view of the diagonals [N,n] of matrices t [N,n,n].
func Diagonal(t Tensor) Tensor {
	return make1("diagonal", func(out *C.nst_tensor) *C.char { return C.nst_tensor_diagonal(handle(t), out) }, t)
}

// SquareSums returns the sums of squares over all dimensions but the first. It
// needs no memory to speak of.
func SquareSums(t Tensor) Tensor {
	return make1("square_sums", func(out *C.nst_tensor) *C.char { return C.nst_tensor_square_sums(handle(t), out) }, t)
}

// Norms returns the Euclidean norms over all dimensions but the first, in float32 if
// t is of half precision: the roots of SquareSums. It needs no memory to speak of.
func Norms(t Tensor) Tensor {
	return make1("norms", func(out *C.nst_tensor) *C.char { return C.nst_tensor_norms(handle(t), out) }, t)
}

// Crop returns a copy of height×width positions of maps [N,C,H,W], from row top
// and column left. Beyond their edges the maps come round.
func Crop(t Tensor, top, left, height, width int64) Tensor {
	return make1("crop", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_crop(handle(t), C.int64_t(top), C.int64_t(left), C.int64_t(height), C.int64_t(width), out)
	}, t)
}

// AddAround adds part to the positions of t, maps [N,C,H,W], that Crop took it from.
func AddAround(t, part Tensor, top, left int64) {
	change("add_around", func() *C.char {
		return C.nst_tensor_add_around(handle(t), handle(part), C.int64_t(top), C.int64_t(left))
	}, t, part)
}

// Pad returns maps of height×width that are t from row top and column left, and zero
// elsewhere: what Crop's gradient is to the maps it was of.
func Pad(t Tensor, top, left, height, width int64) Tensor {
	return make1("pad", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_pad(handle(t), C.int64_t(top), C.int64_t(left), C.int64_t(height), C.int64_t(width), out)
	}, t)
}

// Lt says which elements of a are less than b's, as a mask.
func Lt(a, b Tensor) Tensor {
	return make1("lt", func(out *C.nst_tensor) *C.char { return C.nst_tensor_lt(handle(a), handle(b), out) }, a, b)
}

// WhereInPlace gives t [N,…], where the mask [N] is set, what other has, of t's sizes
// or of one element.
func WhereInPlace(t, mask, other Tensor) {
	change("where_", func() *C.char { return C.nst_tensor_where_in_place(handle(t), handle(mask), handle(other)) }, t,
		mask, other)
}

// AddInPlace adds factor·other, outside autograd.
func AddInPlace(t, other Tensor, factor float64) {
	change("add_", func() *C.char { return C.nst_tensor_add_in_place(handle(t), handle(other), C.double(factor)) }, t,
		other)
}

// Subtract gives t, of a's shape, the values of a − b, outside autograd.
func Subtract(t, a, b Tensor) {
	change("sub", func() *C.char { return C.nst_tensor_subtract(handle(t), handle(a), handle(b)) }, t, a, b)
}

// MulInPlace multiplies t by other, outside autograd.
func MulInPlace(t, other Tensor) {
	change("mul_", func() *C.char { return C.nst_tensor_mul_in_place(handle(t), handle(other)) }, t, other)
}

// Sums adds up all dimensions of t but the first.
func Sums(t Tensor) Tensor {
	return make1("sums", func(out *C.nst_tensor) *C.char { return C.nst_tensor_sums(handle(t), out) }, t)
}

// EmptyLike returns a tensor of t's shape, type, device and order in memory,
// with no values set.
func EmptyLike(t Tensor) Tensor {
	return make1("empty_like", func(out *C.nst_tensor) *C.char { return C.nst_tensor_empty_like(handle(t), out) }, t)
}

// Wrap says in which directions pictures come round: what is beyond one edge is what lies
// at the other.
type Wrap struct{ X, Y bool }

func (w Wrap) c() C.nst_wrap {
	one := map[bool]C.int32_t{true: 1}
	return C.nst_wrap{x: one[w.X], y: one[w.Y]}
}

// Resize returns pictures [N,C,H,W] at another height and width, by bicubic
// interpolation whose kernel widens with the factor when it shrinks, so that
// nothing aliases. Values may leave the range of t's by a little.
func Resize(t Tensor, height, width int64, wrap Wrap) Tensor {
	return resize(t, height, width, 1, wrap)
}

// ResizeLinear is Resize by linear interpolation: every value is a mean of
// values of t.
func ResizeLinear(t Tensor, height, width int64, wrap Wrap) Tensor {
	return resize(t, height, width, 0, wrap)
}

func resize(t Tensor, height, width int64, cubic C.int32_t, wrap Wrap) Tensor {
	return make1("resize", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_resize(handle(t), C.int64_t(height), C.int64_t(width), cubic, wrap.c(), out)
	}, t)
}
