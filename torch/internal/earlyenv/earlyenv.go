// Package earlyenv keeps gotorch's package initialisation from choosing a
// thread count.
//
// gotorch's init asks libtorch for runtime.NumCPU()/2 threads: half the cores
// idle, and on one core a request for none, which libtorch refuses with an
// exception that nobody catches. It leaves the count alone when
// OMP_NUM_THREADS is set, so this package sets it while gotorch initialises
// and package torch's init calls Restore. The Go specification initialises
// packages that are ready in the order of their import paths, and this one
// (github.com/seed…) sorts before gotorch (github.com/wangkuiyi/…). OpenMP has
// read its environment before any Go code runs, so the passing value reaches
// nothing else.
package earlyenv

import "os"

const name = "OMP_NUM_THREADS"

var set bool

func init() {
	if os.Getenv(name) == "" && os.Getenv("MKL_NUM_THREADS") == "" {
		set = os.Setenv(name, "1") == nil
	}
}

// Restore takes the variable away again if init set it.
func Restore() {
	if set {
		os.Unsetenv(name)
		set = false
	}
}
