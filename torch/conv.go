package torch

// #include "csrc/nsttorch.h"
import "C"

import "runtime"

// KernelsName names the instruction set of this package's own kernels on the
// CPU: "avx512", "avx2" or "baseline".
func KernelsName() string { return C.GoString(C.nst_kernels_name()) }

// Convolution is a 3×3 convolution of stride 1 that keeps its picture's size,
// with its weights. It works outside autograd: Backward is its gradient. Close
// frees it; a forgotten one is freed when it is collected.
type Convolution struct {
	handle  C.nst_convolution
	cleanup runtime.Cleanup
}

// ConvolutionMode is how a convolution is computed.
type ConvolutionMode struct {
	// Fast is Winograd's F(4×4,3×3) in float32 on the CPU, where this package
	// has kernels for it; else, and elsewhere, libtorch's convolution.
	Fast bool
	// Replicate repeats the outermost values beyond the edge, in place of zeros.
	Replicate bool
	// Keep is what is kept of the weights that Fast has transformed.
	Keep KeptWeights
	// Fused is one kernel for the convolution, its bias and its ReLU, where CUDA's
	// libraries have one. They choose how it adds, which may not always be the same.
	Fused bool
}

// KeptWeights says which transformed weights a Convolution keeps: see NewConvolution.
type KeptWeights int32

const (
	// KeepSmall keeps those for small maps, of which the transform would cost more than the
	// convolution.
	KeepSmall KeptWeights = C.NST_KEEP_SMALL
	// KeepAll keeps all.
	KeepAll KeptWeights = C.NST_KEEP_ALL
	// KeepNone keeps none, which takes the least memory.
	KeepNone KeptWeights = C.NST_KEEP_NONE
)

func (m ConvolutionMode) c() C.nst_convolution_mode {
	return C.nst_convolution_mode{fast: flag(m.Fast), replicate: flag(m.Replicate), keep: C.int32_t(m.Keep),
		fused: flag(m.Fused)}
}

// NewConvolution makes one of weights [out,in,3,3] and a bias [out], which it
// keeps hold of. Fast transforms them for each direction, which takes four times
// their memory: each time, or once, by the mode's Keep. Several threads may use one
// convolution.
func NewConvolution(weight, bias Tensor) *Convolution {
	var h C.nst_convolution
	change("convolution", func() *C.char { return C.nst_convolution_new(handle(weight), handle(bias), &h) }, weight,
		bias)
	c := &Convolution{handle: h}
	c.cleanup = runtime.AddCleanup(c, func(h C.nst_convolution) { C.nst_convolution_free(h) }, h)
	return c
}

// Close frees the weights. It may be called again.
func (c *Convolution) Close() {
	if c.handle != nil {
		c.cleanup.Stop()
		C.nst_convolution_free(c.handle)
		c.handle = nil
	}
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// Forward returns the convolution of x [N,in,H,W], [N,out,H,W] with its channels
// innermost in memory; with relu its positive part.
func (c *Convolution) Forward(x Tensor, mode ConvolutionMode, relu bool) Tensor {
	t := make1("convolution", func(out *C.nst_tensor) *C.char {
		return C.nst_convolution_forward(c.handle, handle(x), mode.c(), flag(relu), out)
	}, x)
	runtime.KeepAlive(c)
	return t
}

// Backward returns ∂J/∂x from ∂J/∂y. Where the layer's ReLU came after, y is its
// output (after the ReLU) and the gradient that of that; else y is the zero
// Tensor.
func (c *Convolution) Backward(gradient, y Tensor, mode ConvolutionMode) Tensor {
	inputs, mask := []Tensor{gradient}, C.nst_tensor(nil)
	if y.T != nil {
		inputs = append(inputs, y)
		check("convolution_backward", y)
		mask = handle(y)
	}
	t := make1("convolution_backward", func(out *C.nst_tensor) *C.char {
		return C.nst_convolution_backward(c.handle, handle(gradient), mask, mode.c(), out)
	}, inputs...)
	runtime.KeepAlive(c)
	return t
}

// Normalise returns x·scale + offset of an image x [N,C,H,W], for scale and offset
// [1,C,1,1], of whose type it is, with its channels innermost in memory.
func Normalise(x, scale, offset Tensor) Tensor {
	return make1("normalise", func(out *C.nst_tensor) *C.char {
		return C.nst_normalise(handle(x), handle(scale), handle(offset), out)
	}, x, scale, offset)
}

// NormaliseBackward returns ∂J/∂x, in row order, of y = Normalise(x, scale, offset)
// from ∂J/∂y.
func NormaliseBackward(gradient, scale Tensor) Tensor {
	return make1("normalise_backward", func(out *C.nst_tensor) *C.char {
		return C.nst_normalise_backward(handle(gradient), handle(scale), out)
	}, gradient, scale)
}

// ReLU returns the positive part of x.
func ReLU(x Tensor) Tensor {
	return make1("relu", func(out *C.nst_tensor) *C.char { return C.nst_relu(handle(x), out) }, x)
}

// ReLUBackward returns ∂J/∂x of y = ReLU(x) from ∂J/∂y.
func ReLUBackward(gradient, y Tensor) Tensor {
	return make1("relu_backward", func(out *C.nst_tensor) *C.char {
		return C.nst_relu_backward(handle(gradient), handle(y), out)
	}, gradient, y)
}

// Pool halves maps [N,C,H,W], leaving out an odd last row or column: each value
// is the sum of 2×2 times scale, or their maximum if scale is 0. Of the maximum
// there are also the choices, for MaxPoolBackward, which then needs no x; else they
// are the zero Tensor. This package's own kernels choose in a byte a value, and note
// where the maximum was 0; others in an Int64.
func Pool(x Tensor, scale float64) (y, chosen Tensor) {
	var c C.nst_tensor
	y = make1("pool", func(out *C.nst_tensor) *C.char { return C.nst_pool(handle(x), C.double(scale), out, &c) }, x)
	if c != nil {
		chosen = adopt(c)
	}
	return y, chosen
}

// MaxPoolBackward returns ∂J/∂x [N,C,height,width] of y, Pool's maximum, from ∂J/∂y,
// taken on through a ReLU that made x: where the maximum was 0 there is none. Where
// the choices are bytes it needs no y, which may be the zero Tensor.
func MaxPoolBackward(chosen, y, gradient Tensor, height, width int64) Tensor {
	inputs, mask := []Tensor{chosen, gradient}, C.nst_tensor(nil)
	if y.T != nil {
		inputs = append(inputs, y)
		check("max_pool_backward", y)
		mask = handle(y)
	}
	return make1("max_pool_backward", func(out *C.nst_tensor) *C.char {
		return C.nst_max_pool_backward(handle(chosen), mask, handle(gradient), C.int64_t(height), C.int64_t(width), out)
	}, inputs...)
}

// AveragePoolBackward returns ∂J/∂x [N,C,height,width] of y = Pool(x, scale), scale
// not being 0, from ∂J/∂y.
func AveragePoolBackward(gradient Tensor, scale float64, height, width int64) Tensor {
	return make1("average_pool_backward", func(out *C.nst_tensor) *C.char {
		return C.nst_average_pool_backward(handle(gradient), C.double(scale), C.int64_t(height), C.int64_t(width), out)
	}, gradient)
}

// SYRK returns scale · f·fᵀ for each of the matrices f [N,n,k] (the symmetric
// rank-k product of BLAS): [N,n,n], in float32 if f is of half precision. It can be
// differentiated by autograd.
func SYRK(f Tensor, scale float64) Tensor {
	return make1("syrk", func(out *C.nst_tensor) *C.char { return C.nst_syrk(handle(f), C.double(scale), out) }, f)
}

// BaddbmmInPlace makes sum [N,n,k] into beta·sum + alpha · d·f for symmetric
// matrices d [N,n,n] and f [N,n,k], which is of sum's type; d is rounded to it. With
// beta 0, what was in sum does not count.
func BaddbmmInPlace(sum, d, f Tensor, beta, alpha float64) {
	change("baddbmm_", func() *C.char {
		return C.nst_baddbmm_in_place(handle(sum), handle(d), handle(f), C.double(beta), C.double(alpha))
	}, sum, d, f)
}
