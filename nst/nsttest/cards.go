package nsttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The answers of nvidia-smi on some machines, as a shell's commands: of each card its name,
// compute capability and driver.
const (
	NewCard   = `echo "NVIDIA H100 80GB HBM3, 9.0, 580.65.06"`
	OldCard   = `echo "NVIDIA GeForce GTX 1080, 6.1, 580.65.06"`
	OldDriver = `echo "NVIDIA H100 80GB HBM3, 9.0, 535.183.01"`
	// OldAndNewCard is of two cards, of which the one for the screen comes first.
	OldAndNewCard = OldCard + "; " + NewCard
	// VeryOldDriver knows of no compute capability, and says so where it would answer.
	VeryOldDriver = `case $* in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2 ;;
		*) echo "Tesla K80, 470.57" ;; esac`
	// NamedCard's name has a comma, and StrangeCards are one without a capability and an old one.
	NamedCard    = `echo "NVIDIA Card, Special, 9.0, 580.65.06"`
	StrangeCards = `echo "NVIDIA Other, [N/A], 580.65.06"; ` + OldCard
	NoDevices    = `echo "No devices were found"`
	NoAnswer     = `echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9`
	// LostCard is of two cards, of which one does not answer any more.
	LostCard = OldCard + `; echo "Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost."; exit 15`
)

// NVIDIASMI writes an nvidia-smi into a folder that gives one of the answers above.
func NVIDIASMI(t testing.TB, folder, answer string) {
	t.Helper()
	program := filepath.Join(folder, "nvidia-smi")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+answer+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// Compile makes a shared library of a file of C.
func Compile(t testing.TB, source, library string) {
	t.Helper()
	out, err := exec.Command("cc", "-shared", "-fPIC", "-o", library, source).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", source, err, out)
	}
}
