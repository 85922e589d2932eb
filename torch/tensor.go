package torch

// #cgo CXXFLAGS: -std=c++20
// #cgo LDFLAGS: -lnsttorch
// #include "csrc/nsttorch.h"
import "C"

import (
	"encoding/binary"
	"math"
	"runtime"
	"unsafe"

	"github.com/wangkuiyi/gotorch"
)

// Tensor is gotorch's tensor. Copies share one handle.
type Tensor = gotorch.Tensor

// check panics if a tensor is closed or was never made: libtorch would
// dereference its null handle.
func check(op string, tensors ...Tensor) {
	for _, t := range tensors {
		if t.T == nil || *t.T == nil {
			panic(&Error{Op: op, Message: "a tensor is closed: its scope has ended, or Close was called"})
		}
	}
}

func handle(t Tensor) C.nst_tensor { return C.nst_tensor(*t.T) }

// adopt joins a handle that the C ABI gave.
func adopt(h C.nst_tensor) Tensor {
	p := new(unsafe.Pointer)
	*p = unsafe.Pointer(h)
	return Join(Tensor{T: p})
}

// make1 calls a function of the C ABI that gives one tensor.
func make1(op string, call func(out *C.nst_tensor) *C.char, inputs ...Tensor) Tensor {
	check(op, inputs...)
	var out C.nst_tensor
	must(op, call(&out))
	keepAlive(inputs)
	return adopt(out)
}

// change calls a function of the C ABI that works in place.
func change(op string, call func() *C.char, inputs ...Tensor) {
	check(op, inputs...)
	must(op, call())
	keepAlive(inputs)
}

// borrow calls a gotorch operation.
func borrow(op string, call func() Tensor, inputs ...Tensor) Tensor {
	check(op, inputs...)
	defer func() {
		switch r := recover().(type) {
		case nil:
		case string: // how gotorch says what libtorch threw
			panic(newError(op, r))
		default:
			panic(r)
		}
	}()
	t := Join(call())
	keepAlive(inputs)
	return t
}

// keepAlive holds the handles until libtorch has returned: a kept tensor's
// backstop must not free it in the middle of a call.
func keepAlive(tensors []Tensor) {
	for _, t := range tensors {
		runtime.KeepAlive(t.T)
	}
}

func sizesOf(sizes []int64) (*C.int64_t, C.int64_t) {
	if len(sizes) == 0 {
		return nil, 0
	}
	return (*C.int64_t)(unsafe.Pointer(&sizes[0])), C.int64_t(len(sizes))
}

// FromFloats copies data, row by row, into a new float32 tensor of the given
// sizes on device. The product of the sizes must be len(data).
func FromFloats(data []float32, device Device, sizes ...int64) Tensor {
	count := int64(1)
	for _, s := range sizes {
		count *= s
	}
	if count != int64(len(data)) || count == 0 {
		panic(&Error{Op: "from_floats", Message: "the sizes do not fit the data, or there is none"})
	}
	name, free := cString(string(device))
	defer free()
	s, n := sizesOf(sizes)
	return make1("from_floats", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_from_floats((*C.float)(unsafe.Pointer(&data[0])), s, n, name, out)
	})
}

// FromPart copies rows top to top+h and columns left to left+w of data, planes of
// height×width one after the other, into a new tensor [1,planes,h,w] on the CPU. Beyond
// their edges the planes come round.
func FromPart(data []float32, height, width, top, left, h, w int) Tensor {
	planes := planesOf(data, height, width)
	return make1("from_part", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_from_floats_part((*C.float)(&data[0]), planes, C.int64_t(height), C.int64_t(width),
			C.int64_t(top), C.int64_t(left), C.int64_t(h), C.int64_t(w), out)
	})
}

// ResizeFloats is Resize of data, planes of height×width one after the other, to new
// ones of toHeight×toWidth. Beside these it takes memory for the planes at their old
// height and their new width.
func ResizeFloats(data []float32, height, width, toHeight, toWidth int, wrap Wrap) []float32 {
	planes := planesOf(data, height, width)
	out := make([]float32, int(planes)*toHeight*toWidth)
	must("resize", C.nst_floats_resize((*C.float)(&data[0]), planes, C.int64_t(height), C.int64_t(width),
		(*C.float)(&out[0]), C.int64_t(toHeight), C.int64_t(toWidth), wrap.c()))
	return out
}

func planesOf(data []float32, height, width int) C.int64_t {
	if len(data) == 0 || height <= 0 || width <= 0 || len(data)%(height*width) != 0 {
		panic(&Error{Op: "floats", Message: "the sizes do not fit the data, or there is none"})
	}
	return C.int64_t(len(data) / (height * width))
}

// ScalarType is libtorch's number for an element type.
type ScalarType int32

// Some element types.
const (
	Uint8    ScalarType = 0
	Int64    ScalarType = 4
	Float16  ScalarType = 5
	Float32  ScalarType = 6
	Float64  ScalarType = 7
	BFloat16 ScalarType = 15
)

// FromBytes copies the little-endian elements in data into a new tensor of that
// type and the given sizes on the CPU.
func FromBytes(data []byte, scalar ScalarType, sizes ...int64) Tensor {
	if len(data) == 0 {
		panic(&Error{Op: "from_bytes", Message: "there is no data"})
	}
	s, n := sizesOf(sizes)
	return make1("from_bytes", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_from_bytes(unsafe.Pointer(&data[0]), C.int64_t(len(data)), C.int32_t(scalar), s, n, out)
	})
}

// Full returns a float32 tensor of the given sizes on device, every element
// being value. No sizes make a scalar.
func Full(value float64, device Device, sizes ...int64) Tensor {
	name, free := cString(string(device))
	defer free()
	s, n := sizesOf(sizes)
	return make1("full", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_full(C.double(value), s, n, name, out)
	})
}

// Shape returns the tensor's sizes.
func Shape(t Tensor) []int64 {
	check("shape", t)
	var sizes [8]int64
	var dims C.int64_t
	must("shape", C.nst_tensor_sizes(handle(t), (*C.int64_t)(unsafe.Pointer(&sizes[0])), &dims))
	runtime.KeepAlive(t.T)
	return sizes[:dims:dims]
}

// Count returns the number of the tensor's elements.
func Count(t Tensor) int64 {
	count := int64(1)
	for _, s := range Shape(t) {
		count *= s
	}
	return count
}

// DeviceOf returns the device that holds the tensor.
func DeviceOf(t Tensor) Device {
	check("device", t)
	var name *C.char
	must("device", C.nst_tensor_device(handle(t), &name))
	runtime.KeepAlive(t.T)
	return Device(takeString(name))
}

// Floats copies the tensor's elements, row by row, to host memory as float32.
// On an accelerator it waits for the work that makes them.
func Floats(t Tensor) []float32 {
	out := make([]float32, Count(t))
	if len(out) == 0 {
		return out
	}
	must("floats", C.nst_tensor_floats(handle(t), (*C.float)(unsafe.Pointer(&out[0])), C.int64_t(len(out))))
	runtime.KeepAlive(t.T)
	return out
}

// Float64s is Floats in float64, and rounds nothing.
func Float64s(t Tensor) []float64 {
	if TypeOf(t) == Float64 {
		out, bytes := make([]float64, Count(t)), Bytes(t)
		for i := range out {
			out[i] = math.Float64frombits(binary.LittleEndian.Uint64(bytes[8*i:]))
		}
		return out
	}
	values := Floats(t)
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// PerPicture returns a number for each of N pictures, rounded to like's type, as a tensor
// [N,1,…] of so many dimensions on like's device.
func PerPicture(values []float64, like Tensor, dimensions int) Tensor {
	sizes, bytes := []int64{int64(len(values))}, []byte(nil)
	for _, v := range values {
		bytes = binary.LittleEndian.AppendUint64(bytes, math.Float64bits(v))
	}
	for range dimensions - 1 {
		sizes = append(sizes, 1)
	}
	return To(Cast(FromBytes(bytes, Float64, sizes...), TypeOf(like)), DeviceOf(like))
}

// Bytes copies the tensor's elements, row by row, to host memory as they are,
// little-endian. FromBytes is the way back.
func Bytes(t Tensor) []byte {
	_, size := typeOf(t)
	out := make([]byte, Count(t)*size)
	if len(out) == 0 {
		return out
	}
	must("bytes", C.nst_tensor_bytes(handle(t), unsafe.Pointer(&out[0]), C.int64_t(len(out))))
	runtime.KeepAlive(t.T)
	return out
}

// TypeOf returns the type of the tensor's elements.
func TypeOf(t Tensor) ScalarType {
	scalar, _ := typeOf(t)
	return scalar
}

func typeOf(t Tensor) (ScalarType, int64) {
	check("type", t)
	var scalar C.int32_t
	var size C.int64_t
	must("type", C.nst_tensor_type(handle(t), &scalar, &size))
	runtime.KeepAlive(t.T)
	return ScalarType(scalar), int64(size)
}

// Clone returns a copy with memory of its own.
func Clone(t Tensor) Tensor {
	return make1("clone", func(out *C.nst_tensor) *C.char { return C.nst_tensor_clone(handle(t), out) }, t)
}

// To returns the tensor on device: itself (another handle to the same memory)
// if it is there already, else a copy.
func To(t Tensor, device Device) Tensor {
	name, free := cString(string(device))
	defer free()
	return make1("to", func(out *C.nst_tensor) *C.char { return C.nst_tensor_to(handle(t), name, out) }, t)
}

// Cast returns the tensor with its elements converted: itself (another handle to
// the same memory) if they are of that type already.
func Cast(t Tensor, scalar ScalarType) Tensor {
	return make1("cast", func(out *C.nst_tensor) *C.char {
		return C.nst_tensor_cast(handle(t), C.int32_t(scalar),
			out)
	}, t)
}

// Copy copies source's elements into destination, of the same sizes, on
// whatever devices they are.
func Copy(destination, source Tensor) {
	change("copy", func() *C.char { return C.nst_tensor_copy(handle(destination), handle(source)) }, destination,
		source)
}

// ChannelsLast returns a tensor of four dimensions with its channels innermost
// (NHWC); a copy only if they are not.
func ChannelsLast(t Tensor) Tensor {
	return make1("channels_last", func(out *C.nst_tensor) *C.char { return C.nst_tensor_contiguous(handle(t), 1, out) },
		t)
}
