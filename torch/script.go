package torch

// #include <stdlib.h>
// #include "csrc/nsttorch.h"
import "C"

import (
	"runtime"
	"strings"
	"unsafe"
)

// Module is a TorchScript module. Close it when it is no longer used; the
// collector does so in the end.
type Module struct {
	handle  C.nst_module
	cleanup runtime.Cleanup
}

func newModule(h C.nst_module) *Module {
	m := &Module{handle: h}
	m.cleanup = runtime.AddCleanup(m, func(h C.nst_module) { C.nst_module_free(h) }, h)
	return m
}

// LoadModule reads a TorchScript file in one pass, its parameters going to
// device and needing no gradient.
func LoadModule(path string, device Device) (*Module, error) {
	if err := checkABI(); err != nil {
		return nil, &Error{Op: "load", Message: err.Error()}
	}
	file, freeFile := cString(path)
	defer freeFile()
	name, freeName := cString(string(device))
	defer freeName()
	var h C.nst_module
	if err := failure("load", C.nst_module_load(file, name, &h)); err != nil {
		return nil, err
	}
	return newModule(h), nil
}

// NewModule returns an empty module of the given class name, to be filled by
// Add…, Define and saved.
func NewModule(name string) (*Module, error) {
	if err := checkABI(); err != nil {
		return nil, &Error{Op: "module", Message: err.Error()}
	}
	n, free := cString(name)
	defer free()
	var h C.nst_module
	if err := failure("module", C.nst_module_new(n, &h)); err != nil {
		return nil, err
	}
	return newModule(h), nil
}

// Close frees the module. Closing it again does nothing.
func (m *Module) Close() {
	if m.handle != nil {
		m.cleanup.Stop()
		C.nst_module_free(m.handle)
		m.handle = nil
	}
}

// named calls a function of the C ABI that takes the module and a name.
func (m *Module) named(op, name string, call func(name *C.char) *C.char, inputs ...Tensor) error {
	defer runtime.KeepAlive(m)
	defer keepAlive(inputs)
	check(op, inputs...)
	n, free := cString(name)
	defer free()
	return failure(op, call(n))
}

// AddParameter registers a parameter, which shares t's memory and needs no
// gradient.
func (m *Module) AddParameter(name string, t Tensor) error {
	return m.named("register_parameter", name, func(n *C.char) *C.char {
		return C.nst_module_add_parameter(m.handle, n, handle(t))
	}, t)
}

// AddBuffer registers a constant tensor, which shares t's memory.
func (m *Module) AddBuffer(name string, t Tensor) error {
	return m.named("register_buffer", name, func(n *C.char) *C.char {
		return C.nst_module_add_buffer(m.handle, n, handle(t))
	}, t)
}

// AddString registers a string attribute.
func (m *Module) AddString(name, value string) error {
	v, free := cString(value)
	defer free()
	return m.named("register_attribute", name, func(n *C.char) *C.char {
		return C.nst_module_add_string(m.handle, n, v)
	})
}

// Define compiles TorchScript source (method definitions) into the module.
func (m *Module) Define(source string) error {
	return m.named("define", source, func(s *C.char) *C.char { return C.nst_module_define(m.handle, s) })
}

// Save writes the module to a file.
func (m *Module) Save(path string) error {
	return m.named("save", path, func(p *C.char) *C.char { return C.nst_module_save(m.handle, p) })
}

// Schema returns the signature of one of the module's methods, such as
// "forward(__torch__.VGG self, Tensor image) -> Tensor"; empty if it has none
// of that name.
func (m *Module) Schema(method string) (string, error) {
	var text *C.char
	err := m.named("schema", method, func(n *C.char) *C.char { return C.nst_module_schema(m.handle, n, &text) })
	return takeString(text), err
}

// Attribute returns a string attribute and whether the module has it.
func (m *Module) Attribute(name string) (string, bool, error) {
	var text *C.char
	err := m.named("attribute", name, func(n *C.char) *C.char { return C.nst_module_string(m.handle, n, &text) })
	return takeString(text), text != nil, err
}

// SetAttribute changes a string attribute that the module has.
func (m *Module) SetAttribute(name, value string) error {
	v, free := cString(value)
	defer free()
	return m.named("set_attribute", name, func(n *C.char) *C.char {
		return C.nst_module_set_string(m.handle, n, v)
	})
}

// Cast converts the module's floating-point parameters and buffers in place.
func (m *Module) Cast(scalar ScalarType) error {
	defer runtime.KeepAlive(m)
	return failure("cast", C.nst_module_cast(m.handle, C.int32_t(scalar)))
}

// Parameters returns the names of the module's parameters and buffers.
func (m *Module) Parameters() ([]string, error) {
	var text *C.char
	if err := failure("parameters", C.nst_module_parameters(m.handle, &text)); err != nil {
		return nil, err
	}
	runtime.KeepAlive(m)
	return strings.Fields(takeString(text)), nil
}

// Parameter returns a parameter or buffer by its name (another handle to the
// same memory).
func (m *Module) Parameter(name string) Tensor {
	n, free := cString(name)
	defer free()
	defer runtime.KeepAlive(m)
	return make1("parameter", func(out *C.nst_tensor) *C.char { return C.nst_module_parameter(m.handle, n, out) })
}

// Forward calls forward(image, layers), which returns one tensor per layer.
func (m *Module) Forward(image Tensor, layers []string) []Tensor {
	check("forward", image)
	if len(layers) == 0 {
		return nil
	}
	names, free := cString(strings.Join(layers, "\n"))
	defer free()
	out := make([]C.nst_tensor, len(layers))
	must("forward", C.nst_module_forward(m.handle, handle(image), names, C.int64_t(len(layers)), &out[0]))
	runtime.KeepAlive(image.T)
	runtime.KeepAlive(m)
	features := make([]Tensor, len(layers))
	for i, h := range out {
		features[i] = adopt(h)
	}
	return features
}

// ForwardPair calls forward(a, b), and returns the tensor that it does, or the last of several:
// a network that refines its answer gives all of them.
func (m *Module) ForwardPair(a, b Tensor) Tensor {
	defer runtime.KeepAlive(m)
	return make1("forward", func(out *C.nst_tensor) *C.char {
		return C.nst_module_forward_pair(m.handle, handle(a), handle(b), out)
	}, a, b)
}

func cString(s string) (*C.char, func()) {
	c := C.CString(s)
	return c, func() { C.free(unsafe.Pointer(c)) }
}
