package torch

// #include "csrc/nsttorch.h"
import "C"

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// ErrOutOfMemory is matched (errors.Is) by the errors of allocations that
// failed, on the host or on a device.
var ErrOutOfMemory = errors.New("out of memory")

// ErrDeviceLost is matched (errors.Is) by the errors of a device that has failed, at whatever it
// was doing, such as a kernel's illegal access, a card that fell off the bus, or memory that is
// broken: CUDA serves it no more in this process. What its memory had is gone.
var ErrDeviceLost = errors.New("the device is lost")

// ErrDevice is matched (errors.Is) by the errors of devices that do not exist
// or cannot be used.
var ErrDevice = errors.New("no such device")

// Error is an error of libtorch.
type Error struct {
	// Op is the function that failed, such as "mm".
	Op string
	// Message is libtorch's own message, without its C++ stack trace and its advice for those who
	// develop it; of a lost device it says which, and what CUDA said.
	Message string
	// Lost is the device that is lost; "": none is.
	Lost Device
}

// Error returns the function and libtorch's message; of a lost device, which is no function's
// fault, only that.
func (e *Error) Error() string {
	if e.Lost != "" {
		return e.Message
	}
	return "libtorch: " + e.Op + ": " + e.Message
}

// shortages are what the messages of errors that lack memory have in them. libtorch
// has a class for such errors, of its own allocators on accelerators; the CPU's, and
// CUDA's libraries, are told by their text: cuDNN passes over what does not fit, and
// in the end finds no engine.
var shortages = []string{
	"out of memory", "can't allocate memory", "not enough memory", "std::bad_alloc", "Storage size calculation " +
		"overflowed",
	"unable to find an engine", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",
	"CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_INITIALIZED", "DEVICE_ALLOCATION_FAILED",
}

// Is says whether target is ErrDeviceLost or ErrOutOfMemory, and this is such an error.
func (e *Error) Is(target error) bool {
	if e.Lost != "" {
		return target == ErrDeviceLost
	}
	return target == ErrOutOfMemory && isShortage(e.Message)
}

func isShortage(message string) bool {
	return slices.ContainsFunc(shortages, func(sign string) bool { return strings.Contains(message, sign) })
}

// interpreterTrace is the frame that TorchScript's interpreter puts around a
// message; the message is what follows its last "RuntimeError: ".
var interpreterTrace = regexp.MustCompile(
	`(?s)^The following operation failed in the TorchScript interpreter\..*(?:Error|Exception): `)

// advice is how libtorch's advice for developers begins, after CUDA's own words.
var advice = []string{"\nSearch for `cuda", "\nCUDA kernel errors might be", "\nFor debugging consider",
	"\nCompile with "}

// newError makes an error of what libtorch says. It is called on the thread that it happened on.
func newError(op, message string) *Error {
	// Of several devices another one's failure may meet this thread too, by a copy from there.
	if why := lost(strings.Contains(message, "CUDA error") && !isShortage(message)); why != "" {
		device, _, _ := strings.Cut(why, " ")
		return &Error{Op: op, Message: why, Lost: Device(device)}
	}
	for _, beginning := range advice {
		message, _, _ = strings.Cut(message, beginning)
	}
	// gotorch's messages carry libtorch's C++ frames.
	for _, trace := range []string{"\nException raised from ", "\nTraceback of TorchScript"} {
		if i := strings.Index(message, trace); i > 0 && !interpreterTrace.MatchString(message) {
			message = message[:i]
		}
	}
	message = interpreterTrace.ReplaceAllString(message, "")
	return &Error{Op: op, Message: strings.TrimSpace(message)}
}

// lost is which CUDA device, the thread's or any, is lost, and why; "": none is.
func lost(anyDevice bool) string {
	var why *C.char
	asked := C.int32_t(0)
	if anyDevice {
		asked = 1
	}
	if message := C.nst_device_lost(asked, &why); message != nil {
		C.nst_message_free(message)
	}
	if why == nil {
		return ""
	}
	return takeString(why)
}

// OfDevice says whether an error is the device's, which is lost or short of memory, and not that of
// what it was asked for.
func OfDevice(err error) bool { return errors.Is(err, ErrDeviceLost) || errors.Is(err, ErrOutOfMemory) }

// failure turns what a function of the C ABI returned into an error, and frees
// it.
func failure(op string, message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.nst_message_free(message)
	return newError(op, C.GoString(message))
}

// must is failure for numeric code: it panics, and the scope returns the error.
func must(op string, message *C.char) {
	if err := failure(op, message); err != nil {
		panic(err)
	}
}

// takeString copies and frees a string that the C ABI gave.
func takeString(s *C.char) string {
	defer C.nst_message_free(s)
	return C.GoString(s)
}
