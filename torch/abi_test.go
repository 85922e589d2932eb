package torch

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// The library that the tests run with is of this header; another one is refused in words.
func TestABI(t *testing.T) {
	assert.NoError(t, checkABI())
	assert.ErrorContains(t, compareABI("0123456789", "abcdefghij"), "is of ABI 01234567, this program of abcdefgh")
}
