// Package cudatest has the tests that run libtorch's CUDA code, and all of nst that is built on
// it, over the pretend CUDA (torch/csrc/testdevice/cuda): what is sent, when, with how much
// memory, and what comes of every failure. It has no kernels, and so says nothing of numbers.
package cudatest
