package torch

// #include "csrc/nsttorch.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Device names where a tensor is, as libtorch does: "cpu", "cuda:0".
type Device string

// CPU is the host.
const CPU Device = "cpu"

// deviceLibrary loads the backend that NST_DEVICE_LIBRARY names, once.
var deviceLibrary = sync.OnceValue(func() error {
	path := os.Getenv("NST_DEVICE_LIBRARY")
	if path == "" {
		return nil
	}
	p, free := cString(path)
	defer free()
	if err := failure("load", C.nst_load_device_library(p)); err != nil {
		return fmt.Errorf("NST_DEVICE_LIBRARY: %w", err)
	}
	return nil
})

// ParseDevice returns the device that name means, made ready for use: "cpu",
// "cuda" or "cuda:N", "auto" (the first CUDA device if there is one, else the
// CPU), or a device of the backend that the environment variable
// NST_DEVICE_LIBRARY names. It loads libtorch's CUDA library when a CUDA device
// is first asked for, which must be before any other use of this package in
// the process. The error matches ErrDevice, ErrDeviceLost or ErrOutOfMemory.
func ParseDevice(name string) (Device, error) {
	if err := errors.Join(checkABI(), deviceLibrary()); err != nil {
		return "", fmt.Errorf("%w: %w", ErrDevice, err)
	}
	switch kind, index, numbered := strings.Cut(name, ":"); {
	case name == "cpu":
		return CPU, nil
	case name == "auto":
		if !HasNVIDIADriver() {
			return CPU, nil
		}
		device, err := ParseDevice("cuda")
		if err != nil {
			autoFallback.Store(&err)
			return CPU, nil
		}
		return device, nil
	default:
		n, err := strconv.Atoi(index)
		if kind == "" || numbered && (err != nil || n < 0) {
			return "", fmt.Errorf("%w: %q; known are auto, cpu, cuda and cuda:N", ErrDevice, name)
		}
		if kind == "cuda" {
			if err := failure("cuda", C.nst_load_cuda()); OfDevice(err) {
				return "", err
			} else if err != nil {
				return "", fmt.Errorf("%w: %s: %s", ErrDevice, name, err.(*Error).Message)
			}
		}
		count, err := DeviceCount(kind)
		if err != nil {
			return "", fmt.Errorf("%w: %q; known are auto, cpu, cuda and cuda:N", ErrDevice, name)
		}
		if n >= count {
			return "", fmt.Errorf("%w: %s: libtorch finds %d %s devices", ErrDevice, name, count, kind)
		}
		device := Device(fmt.Sprintf("%s:%d", kind, n))
		d, free := cString(string(device))
		defer free()
		err = Retry(device, func() error { return failure("device", C.nst_try_device(d)) })
		if OfDevice(err) {
			return "", err
		}
		if err != nil {
			return "", fmt.Errorf("%w: %s: %s", ErrDevice, device, err.(*Error).Message)
		}
		return device, nil
	}
}

// autoFallback is why "auto" came to be the CPU.
var autoFallback atomic.Pointer[error]

// AutoFallback returns why ParseDevice("auto") gave the CPU on a machine with an
// NVIDIA driver: nil if it did not.
func AutoFallback() error {
	if why := autoFallback.Load(); why != nil {
		return *why
	}
	return nil
}

// Card names a CUDA device's card and its compute capability; "" for other devices.
func Card(device Device) string {
	d, free := cString(string(device))
	defer free()
	var name *C.char
	if failure("card", C.nst_device_card(d, &name)) != nil {
		return ""
	}
	return takeString(name)
}

// ComputeCapability is a CUDA device's compute capability: 75 is 7.5; 0 for other devices.
func ComputeCapability(device Device) int {
	if !strings.HasPrefix(string(device), "cuda") {
		return 0
	}
	d, free := cString(string(device))
	defer free()
	var capability C.int32_t
	if failure("capability", C.nst_device_capability(d, &capability)) != nil {
		return 0
	}
	return int(capability)
}

// CardBus is where a CUDA device's card is on the PCI bus, as NVIDIA's tools name it
// (0000:65:00.0); "" for other devices.
func CardBus(device Device) string {
	d, free := cString(string(device))
	defer free()
	var bus *C.char
	if failure("bus", C.nst_device_bus(d, &bus)) != nil {
		return ""
	}
	return takeString(bus)
}

// driverFile is there where a driver for NVIDIA's GPUs is loaded. It is a variable so that
// tests can build a program that finds it elsewhere (-ldflags -X).
var driverFile = "/dev/nvidiactl"

// HasNVIDIADriver says whether a driver for NVIDIA's GPUs is loaded. Asking it
// spares machines without one from loading libtorch's CUDA library, which is
// half a gigabyte.
func HasNVIDIADriver() bool {
	_, err := os.Stat(driverFile)
	if err == nil {
		return true
	}
	// The Windows subsystem for Linux has this with any GPU, and that with NVIDIA's.
	_, err = os.Stat("/dev/dxg")
	if err == nil {
		_, err = os.Stat("/usr/lib/wsl/lib/libcuda.so.1")
	}
	return err == nil
}

// DeviceCount returns how many devices of a kind ("cpu", "cuda") there are. It
// is right for "cuda" only after ParseDevice was asked for one.
func DeviceCount(kind string) (int, error) {
	k, free := cString(kind)
	defer free()
	var count C.int64_t
	err := failure("device_count", C.nst_device_count(k, &count))
	return int(count), err
}

// Synchronize waits until all work sent to the device is done.
func Synchronize(device Device) {
	name, free := cString(string(device))
	defer free()
	must("synchronize", C.nst_device_synchronize(name))
}

// Memory is what a device's memory is used for, in bytes.
type Memory struct {
	// Free and Total describe the whole device; 0 where it does not say.
	Free, Total int64
	// Allocated and Peak are this process's tensors, now and at most. On the
	// CPU they are its resident memory.
	Allocated, Peak int64
}

// MemoryOf returns the use of a device's memory.
func MemoryOf(device Device) (Memory, error) {
	if device == CPU {
		return hostMemory()
	}
	name, free := cString(string(device))
	defer free()
	var f, t, a, p C.int64_t
	err := failure("memory", C.nst_device_memory(name, &f, &t, &a, &p))
	return Memory{Free: int64(f), Total: int64(t), Allocated: int64(a), Peak: int64(p)}, err
}

// ResetPeak makes Peak count from now. The CPU's Peak is the process's whole
// life's, and stays; HostTensors' begins anew.
func ResetPeak(device Device) error {
	if device == CPU {
		return failure("reset_peak", C.nst_host_memory_reset_peak())
	}
	name, free := cString(string(device))
	defer free()
	return failure("reset_peak", C.nst_device_reset_peak(name))
}

// HostTensors returns what large tensors on the CPU (of 256 KiB and more) have of
// the host's memory, and the most that they had since ResetPeak(CPU).
func HostTensors() (now, peak int64) {
	var n, p C.int64_t
	must("host_memory", C.nst_host_memory(&n, &p))
	return int64(n), int64(p)
}

// LimitHostTensors has the calling thread's large tensors on the CPU fail with
// ErrOutOfMemory that would take the process's beyond so many bytes. 0 means no limit.
func LimitHostTensors(bytes int64) {
	must("host_memory_limit", C.nst_host_memory_limit(C.int64_t(bytes)))
}

// LimitMemory bounds what this process's tensors, and the cache of what they gave back, take of a
// CUDA device's memory: beyond it an allocation is out of memory, after the cache was emptied.
// 0: all that there is. On other devices it does nothing: see LimitHostTensors.
func LimitMemory(device Device, bytes int64) error {
	if !strings.HasPrefix(string(device), "cuda") {
		return nil
	}
	name, free := cString(string(device))
	defer free()
	return failure("limit", C.nst_device_limit(name, C.int64_t(bytes)))
}

// EmptyCache gives back to the system the memory that is kept for the device's
// tensors to come.
func EmptyCache(device Device) error {
	if device == CPU {
		return failure("empty_cache", C.nst_host_memory_trim())
	}
	name, free := cString(string(device))
	defer free()
	err := failure("empty_cache", C.nst_device_empty_cache(name))
	// libtorch empties those of all CUDA devices, in their order, of which another may be lost.
	var e *Error
	if errors.As(err, &e) && e.Lost != "" && e.Lost != device {
		return nil
	}
	return err
}

// Retry does f, and once more if memory ran short, after the cache of the device is emptied: what is
// short can be what the libraries and the driver take, which the cache does not know of. f is
// numeric code with a scope of its own, and can be done twice.
func Retry(device Device, f func() error) error {
	err := Scoped(f)
	if !errors.Is(err, ErrOutOfMemory) {
		return err
	}
	if emptied := EmptyCache(device); emptied != nil {
		return emptied
	}
	return Scoped(f)
}

// ControlDevice gives a command to the backend that NST_DEVICE_LIBRARY loaded
// and returns its answer. It is there for the tests' pretend accelerator, which
// counts copies and takes orders to fail.
func ControlDevice(command string, value int64) (int64, error) {
	if err := deviceLibrary(); err != nil {
		return 0, err
	}
	c, free := cString(command)
	defer free()
	var result C.int64_t
	err := failure("control", C.nst_device_control(c, C.int64_t(value), &result))
	return int64(result), err
}

// DeviceJournal returns what the backend that NST_DEVICE_LIBRARY loaded was sent
// while ControlDevice("journal", 1) held: a line for each operation and each use of
// the host. It is there for the tests' pretend accelerator.
func DeviceJournal() (string, error) {
	var text *C.char
	if err := failure("journal", C.nst_device_journal(&text)); err != nil {
		return "", err
	}
	return takeString(text), nil
}

// UseLibtorch has the program load libtorch from a folder, which has libtorch_cpu.so and
// libc10.so in it, in place of the one that its libraries were linked with. It is to be
// called before anything else of this package but ABI, Version and HasNVIDIADriver, and
// the version has to be Version. Programs that are linked with libtorch itself (pkg-config)
// have loaded it: of them it changes nothing.
func UseLibtorch(folder string) error { return os.Setenv("NST_LIBTORCH", folder) }

// Version is the version of the libtorch that the program was compiled with, such as
// "2.15.0"; "unknown" where the program's libraries are missing. It loads nothing where libtorch is
// loaded late.
func Version() string { return C.GoString(C.nst_version()) }

// LibraryFolder is the folder of the libtorch in use.
func LibraryFolder() (string, error) {
	var path *C.char
	if err := failure("library", C.nst_library_path(&path)); err != nil {
		return "", err
	}
	return filepath.Dir(takeString(path)), nil
}

// Math is how CUDA computes what one thread sends.
type Math struct {
	// TF32 rounds what convolutions, and products of feature maps, multiply to 10
	// bits of mantissa. An optimiser's products are never rounded.
	TF32 bool
	// Autotune has cuDNN try its algorithms for each shape that it has not met on
	// this thread, and keep the fastest: that takes seconds, and the last bits may
	// differ from run to run.
	Autotune bool
	// Deterministic leaves out algorithms that add in no fixed order.
	Deterministic bool
}

// SetMath chooses for the calling thread, to which its goroutine should be locked
// (see Thread). It means nothing to other devices.
func SetMath(m Math) {
	must("set_math", C.nst_set_math(flag(m.TF32), flag(m.Autotune), flag(m.Deterministic)))
}

// Threads is the size of the calling thread's OpenMP pool.
func Threads() int {
	var count C.int64_t
	must("threads", C.nst_threads(&count))
	return int(count)
}

// SetThreads changes the size of the calling thread's OpenMP pool, to which its
// goroutine should be locked (see Thread), and returns what it was.
func SetThreads(count int) (before int) {
	before = Threads()
	must("set_threads", C.nst_set_threads(C.int64_t(count)))
	return before
}
