package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// The default network is made of its published weights, where it can be written to.
func TestExpand(t *testing.T) {
	nsttest.NoLeaks(t)
	weights := filepath.Join(nsttest.Root(t), "nst", "vgg19", "testdata", "weights.safetensors")
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	nowhere, there := filepath.Join(file, "vgg19.pt"), filepath.Join(folder, "share", "nst", "vgg19.pt")
	path, err := expand(weights, []string{nowhere, there})
	require.NoError(t, err)
	assert.Equal(t, there, path)
	status, stdout, stderr := runNST(t, "weights", "inspect", path)
	assert.Equal(t, exitDone, status, stderr)
	assert.Contains(t, stdout, "weights.safetensors")
	_, err = expand(weights, []string{nowhere})
	assert.ErrorContains(t, err, "$NST_MODEL")
}
