package nsttest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed9bb5c928/nst/torch"
)

// pretendCUDA is the library that stands for NVIDIA's driver, and brings the others.
func pretendCUDA() (string, error) {
	folder, err := root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "build", "lib", "pretendcuda", "libcuda.so.1")
	if _, err = os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: scripts/setup compiles it, for a libtorch that has CUDA's code (the pinned one has)",
			err)
	}
	return path, nil
}

// PretendCUDA is the environment for a program that is to find the pretend CUDA in place of
// NVIDIA's libraries. Orders, and the journal's file, are as in torch/csrc/testdevice/cuda.
func PretendCUDA(t testing.TB, journal string, orders ...string) []string {
	t.Helper()
	path, err := pretendCUDA()
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "LD_PRELOAD="+path, "NST_DEVICE_LIBRARY=",
		"NST_PRETEND_CUDA="+strings.Join(orders, ";"), "NST_PRETEND_CUDA_JOURNAL="+journal)
}

// RunWithPretendCUDA is for a TestMain: it runs the tests over the pretend CUDA, which
// torch.ControlDevice and torch.DeviceJournal reach.
func RunWithPretendCUDA(m *testing.M, orders ...string) {
	path, err := pretendCUDA()
	if err == nil && os.Getenv("LD_PRELOAD") != path { // which is read when a program starts
		environment := slices.DeleteFunc(os.Environ(), func(of string) bool {
			return strings.HasPrefix(of, "LD_PRELOAD=") || strings.HasPrefix(of, "NST_DEVICE_LIBRARY=")
		})
		err = syscall.Exec("/proc/self/exe", os.Args, append(environment, "LD_PRELOAD="+path,
			"NST_DEVICE_LIBRARY="+path, "NST_PRETEND_CUDA="+strings.Join(orders, ";")))
	}
	if err == nil {
		_, err = torch.ParseDevice("cuda")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
