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

// checkABI says whether libnsttorch.so was compiled with the header that this program
// was: another one would be called wrongly.
var checkABI = sync.OnceValue(func() error {
	sum := sha256.Sum256(header)
	return compareABI(C.GoString(C.nst_abi()), hex.EncodeToString(sum[:]))
})

func compareABI(library, program string) error {
	if library != program {
		return fmt.Errorf("libnsttorch.so is of ABI %.8s, this program of %.8s: compile both anew, by scripts/setup",
			library, program)
	}
	return nil
}
