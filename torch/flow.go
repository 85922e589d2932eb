package torch

// #include "csrc/nsttorch.h"
import "C"

// Flow is how the pixels of one picture move to another: u, to the right, and v, down,
// two planes of height×width, so that from at (x,y) is to at (x+u,y+v). The pictures are
// RGB, three planes with values in [0,1]; what is not in [0,1] is clamped, NaN to 0.
// Where pixels leave the picture or are hidden, their motion is a guess from what is
// around. The same pictures have the same flow, whatever the number of threads. Beside
// the pictures it takes about 65 bytes for each pixel.
//
// The method is dense inverse search with a variational refinement (Kroeger, Timofte,
// Dai and Van Gool, arXiv:1603.03590): see csrc/cpu/flow.cc.
func Flow(from, to []float32, height, width int) []float32 {
	if planesOf(from, height, width) != 3 || len(to) != len(from) {
		panic(&Error{Op: "flow", Message: "the pictures are not of three planes of the size"})
	}
	out := make([]float32, 2*height*width)
	must("flow", C.nst_flow((*C.float)(&from[0]), (*C.float)(&to[0]), C.int64_t(height), C.int64_t(width),
		(*C.float)(&out[0])))
	return out
}

// Warp moves pictures back along a flow, two planes u and v of height×width: the result at
// (x,y) is planes, any number of them one after the other, at (x+u,y+v). Between pixels it
// is cubic, by Catmull and Rom (Keys 1981, a = -1/2), so values may leave the range of
// those around; beyond the edges the picture goes on as its edge is.
func Warp(planes []float32, flow []float32, height, width int) []float32 {
	count := planesOf(planes, height, width)
	if len(flow) != 2*height*width {
		panic(&Error{Op: "warp", Message: "the flow is not of two planes of the size"})
	}
	out := make([]float32, len(planes))
	must("warp", C.nst_warp((*C.float)(&planes[0]), count, (*C.float)(&flow[0]), C.int64_t(height), C.int64_t(width),
		(*C.float)(&out[0])))
	return out
}
