package torch

// #include "csrc/nsttorch.h"
import "C"

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"sync"
)

//go:embed csrc/nsttorch.h
var header []byte

// ABI is the SHA-256 of the header that this program was compiled with, which
// libnsttorch.so has to be of. It loads nothing.
func ABI() string {
	sum := sha256.Sum256(header)
	return hex.EncodeToString(sum[:])
}

// Load loads libtorch, which the first function that computes does else: half a second in which a
// program can do other work. The error is one of an installation.
func Load() error { return checkABI() }

// checkABI says whether libtorch can be loaded, and libnsttorch.so was compiled with the header
// that this program was: another one would be called wrongly.
var checkABI = sync.OnceValue(func() error {
	if why := C.nst_load(); why != nil {
		return fmt.Errorf("libtorch cannot be loaded: %s", C.GoString(why))
	}
	return compareABI(C.GoString(C.nst_abi()), ABI())
})

func compareABI(library, program string) error {
	if library != program {
		return fmt.Errorf("libnsttorch.so is of ABI %.8s, this program of %.8s: compile both anew, by scripts/setup",
			library, program)
	}
	return nil
}
